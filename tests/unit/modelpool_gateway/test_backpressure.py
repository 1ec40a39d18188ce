"""Clients that take their answers late or never, and answers that are larger than any buffer."""

import asyncio
import hashlib

import pytest

from unit.modelpool_gateway.site import PATH, Site, Upstream, serving, until
from unit.modelpool_gateway.test_races import asking

PIECE = bytes(range(256)) * 256  # 64 KiB
MIB = 1024 * 1024


class Flood(Upstream):
    """A worker that writes as much as is taken from it, up to some bytes."""

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.pieces, self.written = pieces, 0
        self.behave = self.flood

    async def flood(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(self.pieces):
            await send({"type": "http.response.body", "body": PIECE, "more_body": number < self.pieces - 1})
            self.written += len(PIECE)


@pytest.fixture
async def flooded(client):
    """A gateway whose clients have little time to read, in front of a worker that answers with 64 MiB."""
    gateway, upstream = Site(client_seconds=0.3), Flood(1024)
    async with serving(upstream) as address, gateway.serving() as url:
        gateway.show("a", "Ready", address)
        yield gateway, upstream, url


async def test_a_large_answer_arrives_whole(client, flooded):
    _, upstream, url = flooded
    seen = hashlib.sha256()
    async with client.post(url + PATH, json={"model": "m"}) as got:
        async for part in got.content.iter_any():
            seen.update(part)
    assert seen.digest() == hashlib.sha256(PIECE * upstream.pieces).digest()


async def stalled(upstream: Flood) -> int:
    """Wait until the worker cannot go on; return how much it has written."""
    before = -1
    while before != upstream.written or not before:
        before = upstream.written
        await asyncio.sleep(0.02)
    return before


async def test_a_worker_waits_for_a_client_that_does_not_read_and_the_client_is_cut_in_the_end(flooded):
    gateway, upstream, url = flooded
    _, writer = await asking(url)
    assert await stalled(upstream) < 32 * MIB, "what nobody takes is not taken from the worker"
    await until(lambda: gateway.notes.answers == [("m", 0)])
    assert gateway.in_flight == [0]
    (worker,) = gateway.directory.of("ns", "m")
    assert worker.breaker.failures == 0, "the worker has done nothing wrong"
    writer.close()


async def test_a_client_that_reads_again_in_time_gets_the_rest(flooded):
    _, upstream, url = flooded
    reader, writer = await asking(url)
    await stalled(upstream)
    size = 0
    async with asyncio.timeout(10):
        while size < upstream.pieces * len(PIECE):
            size += len(await reader.read(MIB))
    writer.close()
