"""A server on loopback that answers as the API server does: leases, lists, watches."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import deepcopy
from typing import Any
from urllib.parse import parse_qs

import orjson
from kubernetes.aio import client as k8s

from modelpool_operator.kube.client import KubeClient
from unit.modelpool_gateway.site import answer, serving

Json = dict[str, Any]


class ApiServer:
    """Objects by their path, and what was written."""

    def __init__(self) -> None:
        self.objects: dict[str, Json] = {}
        self.writes: list[tuple[str, str, Json]] = []
        #: statuses of the next answers, whatever was asked
        self.failures: deque[int] = deque()
        self.lists = 0
        self.version = 10
        #: watches that begin before this version are refused
        self.oldest = 0
        self._history: list[tuple[int, str, Json]] = []
        self._watches: dict[str, set[asyncio.Queue[bytes | None]]] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[KubeClient]:
        """Serve; gives a client."""
        async with serving(self) as url:
            configuration = k8s.Configuration()
            configuration.host = url
            configuration.client_session_kwargs = {"trust_env": False}
            client = KubeClient(k8s.ApiClient(configuration), agent="modelpool-gateway")
            try:
                yield client
            finally:
                await client.close()
                self.end_watches()

    def put(self, collection: str, obj: Json, kind: str = "MODIFIED") -> Json:
        """Have an object be as given, and tell the watches."""
        self.version += 1
        obj = deepcopy(obj)
        obj["metadata"]["resourceVersion"] = str(self.version)
        path = f"{collection}/{obj['metadata']['name']}"
        if kind == "DELETED":
            del self.objects[path]
        else:
            self.objects[path] = obj
        event = {"type": kind, "object": obj}
        self._history.append((self.version, collection, event))
        self.tell(collection, event)
        return obj

    def tell(self, collection: str, event: Json | bytes | None) -> None:
        """Send an event to all watches of a collection; None ends them."""
        line = event if event is None or isinstance(event, bytes) else orjson.dumps(event) + b"\n"
        for queue in self._watches.get(collection, ()):
            queue.put_nowait(line)

    def watched(self, collection: str) -> int:
        return len(self._watches.get(collection, ()))

    def end_watches(self) -> None:
        for collection in self._watches:
            self.tell(collection, None)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while (message := await receive()).get("more_body"):
            body += message["body"]
        body += message.get("body", b"")
        path, query = scope["path"], parse_qs(scope["query_string"].decode())
        if self.failures:
            await self._say(send, self.failures.popleft(), {"message": "as told"})
        elif scope["method"] == "GET" and "watch" in query:
            await self._watch(path, query, send)
        elif scope["method"] == "GET":
            self.lists += 1
            items = [obj for where, obj in self.objects.items() if where.rpartition("/")[0] == path]
            await self._say(send, 200, {"items": items, "metadata": {"resourceVersion": str(self.version)}})
        else:
            await self._write(scope["method"], path, orjson.loads(body), send)

    async def _write(self, method: str, path: str, body: Json, send: Any) -> None:
        self.writes.append((method, path, body))
        if method == "POST":
            path = f"{path}/{body['metadata']['name']}"
            if path in self.objects:
                await self._say(send, 409, {"message": "already exists"})
                return
            self.objects[path] = body
        elif path not in self.objects:
            await self._say(send, 404, {"message": "not found"})
            return
        else:
            self.objects[path] = _merged(self.objects[path], body)
        await self._say(send, 200, self.objects[path])

    async def _watch(self, path: str, query: dict[str, list[str]], send: Any) -> None:
        since = int(query["resourceVersion"][0])
        if since < self.oldest:
            await self._say(send, 410, {"message": "too old resource version"})
            return
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        for version, collection, event in self._history:
            if version > since and collection == path:
                queue.put_nowait(orjson.dumps(event) + b"\n")
        self._watches.setdefault(path, set()).add(queue)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while (line := await queue.get()) is not None:
                await send({"type": "http.response.body", "body": line, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._watches[path].discard(queue)

    async def _say(self, send: Any, status: int, body: Json) -> None:
        await answer(send, status, orjson.dumps(body), content_type="application/json")


def _merged(old: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(old) if isinstance(old, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value)
    return merged
