"""The server: heads in time and of some size, clients that leave, bodies of requests that are answered already."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from modelpool_gateway.asgi import answer
from modelpool_gateway.server import LEAVING, MAX_HEAD_BYTES, Connection, Outlet, create_server
from unit.modelpool_gateway.site import serving, until


class App:
    """Answers at once, without reading; or waits and notes that its client has left."""

    def __init__(self) -> None:
        self.left: list[str] = []
        self.asked: list[str] = []

    async def __call__(self, scope, receive, send):
        self.asked.append(scope["path"])
        if scope["path"] == "/wait":
            left = asyncio.Event()
            scope["extensions"][LEAVING].then = left.set
            await left.wait()
            self.left.append(scope["path"])
            return
        if scope["path"] == "/flood":
            leaving = scope["extensions"][LEAVING]
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while not leaving.reads_late:
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            self.left.append("late")
            leaving.cut()
            return
        await answer(send, 200, [], b"ok")


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
async def connect(app) -> AsyncIterator:
    async with serving(app, server=create_server(app, 1)) as url:
        host, port = url.removeprefix("http://").split(":")
        writers = []

        async def open_one():
            reader, writer = await asyncio.open_connection(host, int(port))
            writers.append(writer)
            return reader, writer

        yield open_one
        for writer in writers:
            writer.close()


async def test_the_application_hears_at_once_when_a_client_leaves(app, connect):
    _, writer = await connect()
    writer.write(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n")
    await until(lambda: app.asked)
    writer.transport.abort()
    await until(lambda: app.left)


async def test_requests_one_after_the_other_on_one_connection_are_answered_in_turn(app, connect):
    reader, writer = await connect()
    writer.write(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\nGET /b HTTP/1.1\r\nhost: x\r\n\r\n")
    for _ in range(2):
        assert await reader.readuntil(b"\r\n\r\nok")
    assert app.asked == ["/a", "/b"]


async def test_a_client_that_does_not_read_is_known_to_be_late(app, connect):
    _, writer = await connect()
    writer.write(b"GET /flood HTTP/1.1\r\nhost: x\r\n\r\n")
    await until(lambda: app.left)


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nhost: x\r\n"], ids=["nothing", "a-line", "half-a-head"]
)
async def test_a_head_that_does_not_end_in_time_ends_the_connection(connect, monkeypatch, sent):
    monkeypatch.setattr(Connection, "head_seconds", 0.05)
    reader, writer = await connect()
    writer.write(sent)
    async with asyncio.timeout(5):
        assert await reader.read() == b""


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"x-long: " + b"y" * (MAX_HEAD_BYTES + 1), id="one-endless-header"),
        pytest.param(b"x: y\r\n" * (MAX_HEAD_BYTES // 5) + b"\r\n", id="many-headers"),
    ],
)
async def test_a_head_that_is_too_large_is_refused(app, connect, sent):
    reader, writer = await connect()
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n" + sent)
    assert b" 431 " in await reader.readline()
    assert app.asked == []


async def test_what_is_no_http_is_refused_in_the_shape_of_every_error(connect):
    reader, writer = await connect()
    writer.write(b"\x16\x03\x01 hello\r\n\r\n")
    text = await reader.read()
    assert text.startswith(b"HTTP/1.1 400 ")
    assert b'"code":"invalid_request"' in text


async def test_two_lengths_are_no_request(app, connect):
    reader, writer = await connect()
    writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")
    assert b" 400 " in await reader.readline()
    assert app.asked == []


async def test_the_rest_of_a_body_that_nobody_wants_is_read_and_the_next_request_is_served(app, connect):
    reader, writer = await connect()
    writer.write(b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhello")
    assert await reader.readuntil(b"ok")
    writer.write(b"world" + b"GET /b HTTP/1.1\r\nhost: x\r\n\r\n")
    assert await reader.readuntil(b"ok")
    assert app.asked == ["/a", "/b"]


async def test_a_body_that_nobody_wants_has_little_time(connect, monkeypatch):
    monkeypatch.setattr(Connection, "head_seconds", 0.05)
    reader, writer = await connect()
    writer.write(b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhello")
    assert await reader.readuntil(b"ok")
    async with asyncio.timeout(5):
        assert await reader.read() == b""


async def test_one_client_more_than_may_be_connected_is_told_so(connect, monkeypatch):
    monkeypatch.setattr(Connection, "most", 1)
    await connect()
    reader, _ = await connect()
    text = await reader.read()
    assert text.startswith(b"HTTP/1.1 503 ")
    assert b"too_many_connections" in text


class Wire(asyncio.Transport):
    """Notes what is written, piece by piece."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []

    def write(self, data):
        self.pieces.append(bytes(data))

    def writelines(self, list_of_data):
        self.pieces.append(b"".join(list_of_data))

    def is_closing(self):
        return b"closed" in self.pieces

    def close(self):
        self.pieces.append(b"closed")


WRITES = [
    pytest.param(["write"], [b"0"], id="as-it-comes"),
    pytest.param(["join", "write", "write", "write"], [b"01", b"2"], id="two-in-one"),
    pytest.param(["join", "write", "close"], [b"0", b"closed"], id="nothing-is-lost-at-the-end"),
    pytest.param(["join", "close"], [b"closed"], id="nothing-was-there-to-join"),
    pytest.param(["write", "close", "write"], [b"0", b"closed"], id="nothing-after-the-end"),
]


@pytest.mark.parametrize(("steps", "pieces"), WRITES)
def test_writes_that_are_joined_are_one_piece(steps, pieces):
    wire = Wire()
    outlet = Outlet(wire)
    number = 0
    for step in steps:
        if step == "write":
            outlet.write(b"%d" % number)
            number += 1
        elif step == "join":
            outlet.join_next()
        else:
            outlet.close()
    assert wire.pieces == pieces
    assert outlet.is_closing() is ("close" in steps)
