"""Connections to workers, spoken with real sockets on loopback."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from modelpool_gateway.pool import Pool, address
from modelpool_gateway.upstream import Connection, UpstreamError

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEAD = b"POST /v1 HTTP/1.1\r\ncontent-length: 2\r\nhost: x\r\n\r\n"


@asynccontextmanager
async def worker(talk: Talk) -> AsyncIterator[str]:
    """A server that does as told with each connection; gives its address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def answering(*answers: bytes) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.readexactly(len(HEAD) + 2)
            writer.write(answer)
        await writer.drain()

    return talk


async def whole(connection: Connection) -> bytes:
    parts = []
    while piece := await connection.piece():
        parts.append(piece)
    return b"".join(parts)


async def answered(connection: Connection) -> bytes:
    await connection.head()
    return await whole(connection)


FORMS = [
    pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", True, id="with-its-length"),
    pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", True, id="in-chunks"),
    pytest.param(b"HTTP/1.1 200 OK\r\n\r\nhello", False, id="until-the-end"),
    pytest.param(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello", False, id="then-closed"),
    pytest.param(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", True, id="after-a-100"
    ),
]


@pytest.mark.parametrize(("answer", "kept"), FORMS)
async def test_an_answer_in_any_form_is_read_whole(answer, kept):
    async with worker(answering(answer)) as endpoint:
        connection = await Pool().take(endpoint)
        connection.send(HEAD, b"{}")
        await connection.head()
        assert connection.status == 200
        assert await whole(connection) == b"hello"
        assert connection.complete
        assert connection.reusable is kept or not connection.alive
        connection.abort()


async def test_a_connection_that_is_kept_is_used_again():
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx"
    asked = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(writer)
        while True:
            await reader.readexactly(len(HEAD) + 2)
            writer.write(answer)

    pool = Pool()
    async with worker(talk) as endpoint:
        for _ in range(3):
            connection = await pool.take(endpoint)
            connection.send(HEAD, b"{}")
            await connection.head()
            assert await whole(connection) == b"x"
            pool.give(endpoint, connection)
        assert len(asked) == 1
        pool.close()


BROKEN = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello", id="less-than-its-length"),
    pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", id="no-last-chunk"),
    pytest.param(b"no answer at all\r\n\r\n", id="no-http"),
    pytest.param(b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 70_000, id="an-endless-head"),
    pytest.param(
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        id="two-lengths",
    ),
]


@pytest.mark.parametrize("answer", BROKEN)
async def test_an_answer_that_breaks_off_never_looks_complete(answer):
    async with worker(answering(answer)) as endpoint:
        connection = await Pool().take(endpoint)
        connection.send(HEAD, b"{}")
        with pytest.raises(UpstreamError) as caught:
            await answered(connection)
        assert not caught.value.untouched, "a new connection's worker has had the request"
        assert not connection.reusable


async def test_an_old_connection_that_the_worker_has_closed_is_told_apart():
    async with worker(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx")) as endpoint:
        connection = await Pool().take(endpoint)
        connection.send(HEAD, b"{}")
        await connection.head()
        await whole(connection)
        connection.send(HEAD, b"{}")
        with pytest.raises(UpstreamError) as caught:
            await connection.head()
        assert caught.value.untouched


async def test_a_connection_that_is_being_closed_takes_no_request():
    """The loop has closed it and has not said so yet."""
    async with worker(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx")) as endpoint:
        connection = await Pool().take(endpoint)
        connection._transport.abort()
        connection.send(HEAD, b"{}")
        with pytest.raises(UpstreamError, match="broke"):
            await connection.head()


async def test_a_worker_that_is_not_there_is_said_at_once():
    with pytest.raises(UpstreamError):
        await Pool().take("http://127.0.0.1:1")


@pytest.mark.parametrize("endpoint", ["", "https://x:1", "x:1", "http://"])
def test_what_is_no_address_is_refused(endpoint):
    with pytest.raises(UpstreamError, match="expected http"):
        address(endpoint)
