"""The API server as the benchmark uses it: raw objects, many requests at once, watches as streams of lines."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import aiohttp
import orjson

from cluster.control_plane import ControlPlane
from cluster.host import ClusterError

Json = dict[str, Any]
_MERGE = "application/merge-patch+json"
_LINE_BYTES = 1 << 24
_PATIENCE = (0.2, 0.5, 1.0, 2.0)


class Api:
    """Requests as administrator, who must never be told to wait: what is measured is the operator."""

    def __init__(self, session: aiohttp.ClientSession, abreast: int) -> None:
        self._session = session
        self._limit = asyncio.Semaphore(abreast)

    async def get(self, path: str) -> Json:
        return await self._ask("GET", path)

    async def create(self, path: str, body: Mapping[str, Any]) -> Json:
        return await self._ask("POST", path, body)

    async def patch(self, path: str, body: Mapping[str, Any]) -> Json:
        return await self._ask("PATCH", path, body, _MERGE)

    async def delete(self, path: str) -> Json:
        return await self._ask("DELETE", path)

    async def define(self, definitions: Mapping[str, Json]) -> None:
        """Create CustomResourceDefinitions, and wait until the API server knows them."""
        for definition in definitions.values():
            path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
            await self.create(path, definition)
            path += "/" + definition["metadata"]["name"]
            while True:
                conditions = (await self.get(path))["status"].get("conditions") or ()
                if any(each["type"] == "Established" for each in conditions):
                    break
                await asyncio.sleep(0.1)

    async def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, kind: str = "application/json"
    ) -> Json:
        data = orjson.dumps(body) if body is not None else None
        async with self._limit:
            for pause in (*_PATIENCE, None):
                async with self._session.request(method, path, data=data, headers={"Content-Type": kind}) as answer:
                    content = await answer.read()
                # a resource that was just defined answers so until its storage is there
                if answer.status != HTTPStatus.TOO_MANY_REQUESTS or pause is None:
                    break
                await asyncio.sleep(pause)
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise ClusterError(f"{method} {path}: {answer.status} {content[:300].decode(errors='replace')}")
        found: Json = orjson.loads(content)
        return found

    async def watch(self, path: str, seen: Callable[[str, Json], None]) -> None:
        """Show everything that is there, then every change; for ever."""
        listed = await self.get(path)
        for item in listed["items"]:
            seen("ADDED", item)
        version = listed["metadata"]["resourceVersion"]
        forever = aiohttp.ClientTimeout(total=None)
        while True:  # a watch ends now and then, and goes on from where it was
            query = {"watch": "1", "resourceVersion": version}
            async with self._session.get(path, params=query, timeout=forever) as stream:
                async for line in stream.content:
                    event = orjson.loads(line)
                    if event["type"] == "ERROR":
                        raise ClusterError(f"the watch of {path} broke: {event['object'].get('message')}")
                    version = event["object"]["metadata"]["resourceVersion"]
                    seen(event["type"], event["object"])


@asynccontextmanager
async def connected(cluster: ControlPlane, abreast: int = 32) -> AsyncIterator[Api]:
    """A client of this control plane that has at most so many requests in flight beside its watches."""
    pki = cluster.ca.parent
    context = ssl.create_default_context(cafile=str(cluster.ca))
    context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
    connector = aiohttp.TCPConnector(limit=0, ssl=context)
    async with aiohttp.ClientSession(
        cluster.url, connector=connector, trust_env=False, read_bufsize=_LINE_BYTES
    ) as session:
        yield Api(session, abreast)
