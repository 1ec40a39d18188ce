"""Requests on their way through the gateway, to workers that are real servers on loopback."""

import asyncio
import io
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
import pytest
import uvicorn

from modelpool_gateway.directory import Directory
from modelpool_gateway.proxy import Limits, Proxy
from modelpool_gateway.waiting_room import Bounds, WaitingRoom

App = Callable[..., Awaitable[None]]
PATH = "/v1/embeddings"


@asynccontextmanager
async def serving(app: App, port: int = 0) -> AsyncIterator[str]:
    """Serve an ASGI application on loopback; gives its address."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
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
        server.should_exit = True
        await task
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
        self.asked.append({"path": scope["path"], "body": body, "headers": dict(scope["headers"])})
        await self.behave(scope, receive, send)

    async def echo(self, scope: Any, receive: Any, send: Any) -> None:
        await answer(send, 200, orjson.dumps({"by": self.name}), content_type="application/json", x_own="yes")

    async def evicting(self, scope: Any, receive: Any, send: Any) -> None:
        await answer(send, 503, b"{}", x_modelpool_state="Evicting", retry_after="1")

    async def busy(self, scope: Any, receive: Any, send: Any) -> None:
        await answer(send, 429, b'{"error": {"message": "queue full"}}', retry_after="3")

    async def stream(self, scope: Any, receive: Any, send: Any) -> None:
        """Two events; the second when told so, or never because the client has left."""
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: one\n\n", "more_body": True})
        told, gone = asyncio.ensure_future(self.go_on.wait()), asyncio.ensure_future(receive())
        await asyncio.wait((told, gone), return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        gone.cancel()
        if not self.go_on.is_set():
            self.left.set()
            return
        await send({"type": "http.response.body", "body": b"data: two\n\n"})

    async def broken_stream(self, scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: one\n\n", "more_body": True})
        # an application that returns here leaves its answer unfinished, and the server cuts the connection


class Gateway:
    """A gateway in front of some workers."""

    def __init__(self, session: aiohttp.ClientSession, limits: Limits | None = None) -> None:
        self.directory = Directory()
        self.room: WaitingRoom[tuple[str, str]] = WaitingRoom(Bounds(per_model=2, in_all=3))
        self.proxy = Proxy("ns", self.directory, self.room, session, limits or Limits(hold_seconds=5))
        self._version = 0

    def show(self, name: str, state: str, endpoint: str = "", message: str = "") -> None:
        """The watch shows a worker of the model m."""
        self._version += 1
        meta = {"namespace": "ns", "name": name, "uid": name, "resourceVersion": str(self._version)}
        status = {"state": state, "endpoint": endpoint, "reason": f"Why{state}", "message": message}
        self.room.changed(
            self.directory.observe({"metadata": meta, "spec": {"model": {"name": "m"}}, "status": status})
        )


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(auto_decompress=False, trust_env=False) as session:
        yield session


@pytest.fixture
def gateway(session) -> Gateway:
    return Gateway(session)


@pytest.fixture
async def url(gateway) -> AsyncIterator[str]:
    async with serving(gateway.proxy) as url:
        yield url


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(trust_env=False) as client:
        yield client


@pytest.fixture
async def one(gateway) -> AsyncIterator[Upstream]:
    """One worker that is Ready."""
    upstream = Upstream()
    async with serving(upstream) as address:
        gateway.show("a", "Ready", address)
        yield upstream


async def post(client: aiohttp.ClientSession, url: str, model: str = "m", **more: Any) -> tuple[int, Any, Any]:
    async with client.post(url + PATH, json={"model": model, "input": "x"}, **more) as answer:
        return answer.status, await answer.json(content_type=None), answer.headers


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - conditions of other tasks, which set no event
            await asyncio.sleep(0.005)


async def test_a_request_goes_to_the_models_worker_and_its_answer_comes_back_as_it_is(client, url, one):
    status, body, headers = await post(client, url, headers={"Authorization": "Bearer secret", "X-Request-Id": "r1"})
    assert (status, body) == (200, {"by": "a"})
    assert headers["X-Own"] == "yes"
    (asked,) = one.asked
    assert asked["path"] == PATH
    assert orjson.loads(asked["body"]) == {"model": "m", "input": "x"}
    assert asked["headers"][b"x-request-id"] == b"r1"
    assert b"authorization" not in asked["headers"], "a client's key is the gateway's to read"


async def test_a_large_body_arrives_whole(client, url, one):
    text = "x" * (3 * 1024 * 1024)
    async with client.post(url + PATH, data=io.BytesIO(orjson.dumps({"model": "m", "input": text}))) as answer:
        assert answer.status == 200
    assert orjson.loads(one.asked[0]["body"])["input"] == text


async def test_a_refusal_of_the_workers_is_passed_on_and_nobody_else_is_asked(client, url, gateway, one):
    one.behave = one.busy
    second = Upstream("b")
    async with serving(second) as address:
        gateway.show("b", "Loading", address)
        status, body, headers = await post(client, url)
    assert (status, headers["Retry-After"]) == (429, "3")
    assert body["error"]["message"] == "queue full"


async def test_one_that_is_being_evicted_is_left_for_another_without_the_client_noticing(client, url, gateway, one):
    one.behave = one.evicting
    second = Upstream("b")
    async with serving(second) as address:
        gateway.show("b", "Processing", address)
        for _ in range(3):
            status, body, _ = await post(client, url)
            assert (status, body) == (200, {"by": "b"})
        assert len(second.asked) == 3
        assert len(one.asked) <= 1, "it is asked no more once it has said so"


async def test_a_worker_that_is_not_there_any_more_is_left_for_another(client, url, gateway, one):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        gateway.show("z", "Idle", f"http://127.0.0.1:{taken.getsockname()[1]}")
        answers = [await post(client, url) for _ in range(8)]
    assert {status for status, *_ in answers} == {200}


async def test_a_worker_that_fails_again_and_again_is_left_alone_and_served_from_again_once_it_answers(
    client, url, gateway
):
    """Who comes meanwhile waits for the end of its pause, not for the end of his time."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        gateway.show("a", "Ready", f"http://127.0.0.1:{port}")
        for _ in range(3):
            assert (await post(client, url))[0] == 503
    upstream = Upstream()
    async with serving(upstream, port):
        answers = await asyncio.gather(*(post(client, url) for _ in range(2)))
    assert [status for status, *_ in answers] == [200, 200]


async def test_a_request_for_a_worker_that_loads_is_held_and_answered_when_it_is_ready(client, url, gateway):
    gateway.show("a", "Loading")
    upstream = Upstream()
    async with serving(upstream) as address:
        asking = asyncio.create_task(post(client, url))
        await until(lambda: len(gateway.room) == 1)
        gateway.show("a", "Ready", address)
        status, body, _ = await asking
    assert (status, body) == (200, {"by": "a"})


async def test_a_held_request_fails_at_once_with_the_workers_own_reason(client, url, gateway):
    gateway.show("a", "Loading")
    asking = asyncio.create_task(post(client, url))
    await until(lambda: len(gateway.room) == 1)
    gateway.show("a", "Failed", message="model.safetensors is cut short")
    status, body, headers = await asking
    assert status == 503
    assert body["error"]["code"] == "WhyFailed"
    assert "model.safetensors is cut short" in body["error"]["message"]
    assert headers["x-should-retry"] == "false"


async def test_held_requests_are_bounded(client, url, gateway):
    gateway.show("a", "Loading")
    held = [asyncio.create_task(post(client, url)) for _ in range(2)]
    await until(lambda: len(gateway.room) == 2)
    status, body, headers = await post(client, url)
    assert (status, body["error"]["code"], headers["Retry-After"]) == (429, "too_many_waiting", "10")
    gateway.show("a", "Failed")
    assert {status for status, *_ in await asyncio.gather(*held)} == {503}


async def test_a_held_client_that_leaves_gives_his_place_back(client, url, gateway):
    gateway.show("a", "Loading")
    asking = asyncio.create_task(post(client, url))
    await until(lambda: len(gateway.room) == 1)
    asking.cancel()
    await until(lambda: len(gateway.room) == 0)


async def test_no_request_is_held_for_ever(client, session):
    gateway = Gateway(session, Limits(hold_seconds=0.05))
    gateway.show("a", "Spawning")
    async with serving(gateway.proxy) as url:
        status, body, _ = await post(client, url)
    assert (status, body["error"]["code"]) == (504, "cold_start_timeout")


async def test_a_stream_passes_unbuffered(client, url, one):
    one.behave = one.stream
    async with client.post(url + PATH, json={"model": "m", "stream": True}) as answer:
        assert await answer.content.readany() == b"data: one\n\n"  # before the worker has written the second
        one.go_on.set()
        assert await answer.content.read() == b"data: two\n\n"
        assert answer.headers["Content-Type"] == "text/event-stream"


async def test_a_client_that_leaves_in_the_middle_of_a_stream_cancels_it_at_the_worker(client, url, gateway, one):
    one.behave = one.stream
    async with client.post(url + PATH, json={"model": "m", "stream": True}) as answer:
        await answer.content.readany()
        assert [worker.in_flight for worker in gateway.directory.of("ns", "m")] == [1]
        answer.close()
    async with asyncio.timeout(5):
        await one.left.wait()
    await until(lambda: [worker.in_flight for worker in gateway.directory.of("ns", "m")] == [0])


async def test_a_stream_that_breaks_says_so_and_is_not_begun_anew(client, url, one):
    one.behave = one.broken_stream
    async with client.post(url + PATH, json={"model": "m", "stream": True}) as answer:
        text = await answer.content.read()
    assert text.startswith(b"data: one\n\ndata: {")
    assert orjson.loads(text.split(b"data: ")[2])["error"]["code"] == "worker_connection"
    assert len(one.asked) == 1


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "sentence"),
    [
        ("POST", PATH, b"no json", 400, "not JSON"),
        ("POST", PATH, b'{"model": "other"}', 404, "no model of this name"),
        ("GET", PATH, b"", 405, "POST"),
        ("POST", "/v1/lifecycle/evict", b"{}", 404, "no such path"),
        ("POST", "/v1/../metrics", b"{}", 404, "no such path"),
        ("POST", PATH, b"[" * (8 * 1024 * 1024 + 1), 413, "larger than"),
    ],
    ids=["no-json", "unknown-model", "method", "lifecycle", "dots", "large"],
)
async def test_what_is_refused_by_the_gateway_itself(client, url, one, method, path, body, status, sentence):
    async with client.request(method, url + path, data=io.BytesIO(body)) as answer:
        assert answer.status == status
        assert sentence in (await answer.json())["error"]["message"]
    assert one.asked == []
