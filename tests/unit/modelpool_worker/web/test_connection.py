"""Connections that never say what they want, and what is no HTTP at all, on a real port of loopback."""

import asyncio
import json
import logging
from contextlib import asynccontextmanager

import pytest

from modelpool_worker import logs
from modelpool_worker.web.connection import HEAD_SECONDS, Connection, most_connections
from modelpool_worker.web.server import create_server, listen
from unit.cut_off import cut_off

HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: w\r\n\r\n"
HALF = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\n"


@asynccontextmanager
async def connected(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


@pytest.fixture
async def port(loading):
    server, listener = create_server(loading.inference), listen("127.0.0.1", 0)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    yield listener.getsockname()[1]
    await cut_off(server, serving)
    listener.close()


async def ask(connection, request=HEALTHZ):
    """The status and the body of an answer."""
    reader, writer = connection
    writer.write(request)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    lines = head.lower().split(b"\r\n")
    (length,) = [int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length")]
    return int(lines[0].split()[1]), await reader.readexactly(length)


@pytest.mark.parametrize("sent", [b"", HALF], ids=["nothing", "half-a-head"])
async def test_who_does_not_send_a_head_in_time_is_hung_up_on(port, monkeypatch, sent):
    monkeypatch.setattr(Connection, "head_seconds", 0.1)
    async with connected(port) as (reader, writer):
        writer.write(sent)
        assert await asyncio.wait_for(reader.read(), 10) == b""


async def test_the_time_for_a_head_is_not_renewed_by_more_of_it_and_begins_anew_with_each_request(port, monkeypatch):
    monkeypatch.setattr(Connection, "head_seconds", 0.3)
    async with connected(port) as (reader, writer):
        assert (await ask((reader, writer)))[0] == 200
        ended = asyncio.create_task(reader.read())
        for _ in range(100):
            if ended.done():
                break
            writer.write(b"X")
            await asyncio.wait([ended], timeout=0.05)
        assert ended.done()


async def test_a_connection_between_two_requests_is_kept(port, monkeypatch):
    monkeypatch.setattr(Connection, "head_seconds", 0.1)
    async with connected(port) as connection:
        assert (await ask(connection))[0] == 200
        await asyncio.sleep(0.3)
        assert (await ask(connection))[0] == 200


async def test_beside_any_number_of_silent_connections_whoever_asks_is_answered(port, monkeypatch):
    """The silent one that has waited longest makes room."""
    monkeypatch.setattr(Connection, "most", 3)
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(6)]
    try:
        async with connected(port) as connection:
            assert await ask(connection) == (200, b'{"status":"ok"}')
        assert await asyncio.wait_for(silent[0][0].read(), 10) == b""
    finally:
        for _, writer in silent:
            writer.close()


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        pytest.param(b"GET /healthz HTTP/1.1\r\n\r\n", 400, None, id="no-host"),
        pytest.param(b"GET /\xff\xfe HTTP/1.1\r\nHost: w\r\n\r\n", 400, None, id="raw-bytes-in-the-path"),
        pytest.param(b"swordfish\r\n\r\n", 400, None, id="no-http"),
        pytest.param(HALF + b"Content-Length: -1\r\n\r\n", 400, None, id="negative-length"),
        pytest.param(HALF + b"X: " + b"x" * 40_000, 431, "headers_too_large", id="large-headers"),
    ],
)
async def test_what_is_no_request_gets_an_error_of_our_shape(port, request_bytes, status, code):
    async with connected(port) as connection:
        answered, body = await ask(connection, request_bytes)
        error = json.loads(body)["error"]
        assert (answered, error["code"]) == (status, code)
        assert "expected" in error["message"]
        assert "swordfish" not in error["message"]


def test_nobody_can_fill_the_log_with_what_is_no_request(capsys):
    logs.configure("info")
    try:
        server = logging.getLogger("uvicorn.error")
        server.warning("Invalid HTTP request received.")
        server.error("ASGI callable returned without completing response.")
        server.error("something else")
        assert [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()] == ["something else"]
    finally:
        logging.getLogger().handlers.clear()


def test_the_bounds_leave_files_for_the_rest_of_the_process():
    assert 16 <= most_connections() <= 2048
    assert HEAD_SECONDS < 75
