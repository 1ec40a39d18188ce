"""A gateway between clients and workers that are real servers on loopback."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp
import orjson
import uvicorn

from modelpool_gateway.bodies import Bodies, BodyBounds
from modelpool_gateway.directory import Directory
from modelpool_gateway.holding import HoldBounds, Holding
from modelpool_gateway.keys import ApiKeys
from modelpool_gateway.listing import Listing
from modelpool_gateway.models import Model, Models
from modelpool_gateway.pool import Pool
from modelpool_gateway.proxy import Proxy
from modelpool_gateway.relay import Relay
from modelpool_gateway.server import create_server
from modelpool_gateway.waiting_room import Bounds, WaitingRoom
from unit.cut_off import cut_off

App = Callable[..., Awaitable[None]]
PATH = "/v1/embeddings"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@asynccontextmanager
async def serving(app: App, port: int = 0, server: uvicorn.Server | None = None) -> AsyncIterator[str]:
    """Serve an ASGI application on loopback; gives its address."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    if server is None:
        config = uvicorn.Config(
            app, lifespan="off", log_config=None, log_level="critical", access_log=False, timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve([listener]))
    try:
        while not server.started:  # noqa: ASYNC110 - uvicorn tells nobody
            await asyncio.sleep(0.005)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        await cut_off(server, task)
        listener.close()


async def answer(send: Any, status: int, body: bytes, **headers: str) -> None:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


class Upstream:
    """A worker's server, and what it was asked."""

    def __init__(self, name: str = "a") -> None:
        self.name = name
        self.asked: list[dict[str, Any]] = []
        self.left = asyncio.Event()
        self.go_on = asyncio.Event()
        self.behave: App = self.echo

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.asked.append(
            {"path": scope["path"], "query": scope["query_string"], "body": body, "headers": dict(scope["headers"])}
        )
        await self.behave(scope, receive, send)

    async def echo(self, scope: Any, receive: Any, send: Any) -> None:
        await answer(send, 200, orjson.dumps({"by": self.name}), content_type="application/json", x_own="yes")

    async def when_told(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer when told so; a client that leaves before is noticed."""
        if await self._told(receive):
            await self.echo(scope, receive, send)

    async def evicting(self, scope: Any, receive: Any, send: Any) -> None:
        await answer(send, 503, b"{}", x_modelpool_state="Evicting", retry_after="1")

    async def busy(self, scope: Any, receive: Any, send: Any) -> None:
        await answer(send, 429, b'{"error": {"message": "queue full"}}', retry_after="3")

    async def anothers(self, scope: Any, receive: Any, send: Any) -> None:
        """Another worker, which has this one's address by now."""
        body = b'{"error": {"message": "this worker serves another model", "code": "model_not_found"}}'
        await answer(send, 404, body, content_length=str(len(body)), x_modelpool_worker="another")

    async def stream(self, scope: Any, receive: Any, send: Any) -> None:
        """Two events; the second when told so, or never because the client has left."""
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: one\n\n", "more_body": True})
        if await self._told(receive):
            await send({"type": "http.response.body", "body": b"data: two\n\n"})

    async def broken_stream(self, scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: one\n\n", "more_body": True})
        # an application that returns here leaves its answer unfinished, and the server cuts the connection

    async def broken_answer(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})
        await send({"type": "http.response.body", "body": b"half of it", "more_body": True})

    async def _told(self, receive: Any) -> bool:
        told, gone = asyncio.ensure_future(self.go_on.wait()), asyncio.ensure_future(receive())
        await asyncio.wait((told, gone), return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        gone.cancel()
        if not self.go_on.is_set():
            self.left.set()
        return self.go_on.is_set()


class Notes:
    """What a gateway has asked for and counted."""

    def __init__(self) -> None:
        self.wanted: list[str] = []
        self.kept: list[tuple[str, int]] = []
        self.answers: list[tuple[str, int]] = []
        self.retries = 0

    def want(self, model: Model) -> None:
        self.wanted.append(model.name)

    def keep(self, model: Model, seconds: int) -> None:
        self.kept.append((model.name, seconds))

    def answered(self, model: str, status: int) -> None:
        self.answers.append((model, status))

    def retried(self) -> None:
        self.retries += 1


class Site:
    """A gateway in front of some workers, told of them as by a watch."""

    def __init__(
        self,
        *,
        hold_seconds: float = 5.0,
        client_seconds: float = 5.0,
        bounds: Bounds | None = None,
        most_in_flight: int = 128,
        keys: ApiKeys | None = None,
        token_of: Callable[[str], str | None] = lambda _pool: None,
        pool: Pool | None = None,
    ) -> None:
        self.notes = Notes()
        self.directory = Directory(most_in_flight)
        self.models = Models()
        self.room: WaitingRoom[tuple[str, str]] = WaitingRoom(bounds or Bounds(per_model=2, in_all=3))
        self.pool = pool or Pool()
        self.bodies = Bodies(BodyBounds(seconds=1.0))
        self.holding = Holding(
            self.directory, self.models, self.room, self.notes, lambda: NOW, HoldBounds(hold_seconds, 0.02)
        )
        relay = Relay(self.pool, token_of, client_seconds, self.holding.closed_again, self.holding.turned_away)
        listing = Listing("ns", self.directory, self.models, lambda: NOW)
        self.proxy = Proxy("ns", self.models, self.holding, relay, self.bodies, listing, self.notes, self.notes, keys)
        #: of the model m, once it is declared
        self.capability = ""
        self._version = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Serve; gives the gateway's address."""
        try:
            async with serving(self.proxy, server=create_server(self.proxy, 1)) as url:
                yield url
        finally:
            self.pool.close()

    def show(
        self,
        name: str,
        state: str,
        endpoint: str = "",
        message: str = "",
        reason: str = "",
        template: str = "",
        **spec: Any,
    ) -> None:
        """The watch shows a worker of the model m."""
        self._version += 1
        meta = {
            "namespace": "ns",
            "name": name,
            "uid": name,
            "resourceVersion": str(self._version),
            "labels": {"modelpool.dev/model": "m-object", "modelpool.dev/template": template},
        }
        status = {"state": state, "endpoint": endpoint, "reason": reason or f"Why{state}", "message": message}
        served = {"name": "m", "capability": self.capability}
        obj = {"metadata": meta, "spec": {"model": served, **spec}, "status": status}
        self.holding.changed(self.directory.observe(obj))

    def declare(self, capability: str = "text-embedding", **status: Any) -> None:
        """The watch shows the Model of the name m."""
        self.capability = capability
        self._version += 1
        meta = {
            "namespace": "ns",
            "name": "m-object",
            "uid": "m-object",
            "resourceVersion": str(self._version),
            "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        }
        spec = {"worker": {"model": {"name": "m", "capability": capability}}}
        for key in self.models.observe({"metadata": meta, "spec": spec, "status": {"observedGeneration": 1, **status}}):
            self.holding.changed(key)

    @property
    def in_flight(self) -> list[int]:
        """How many requests each worker has from here."""
        return [worker.in_flight for worker in self.directory.of("ns", "m")]


async def post(client: aiohttp.ClientSession, url: str, model: str = "m", **more: Any) -> tuple[int, Any, Any]:
    async with client.post(url + PATH, json={"model": model, "input": "x"}, **more) as answer:
        return answer.status, await answer.json(content_type=None), answer.headers


async def read_cut(answer: aiohttp.ClientResponse) -> bytes:
    """Read an answer that is cut off, which is told from one that is complete."""
    text = b""
    try:
        while part := await answer.content.readany():
            text += part
    except aiohttp.ClientPayloadError:
        return text
    raise AssertionError("the answer is complete")


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - conditions of other tasks, which set no event
            await asyncio.sleep(0.005)


async def settle() -> None:
    """Let every task that can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)
