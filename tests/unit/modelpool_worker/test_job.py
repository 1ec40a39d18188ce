"""Pieces of a result on their way from the model to whoever reads them."""

import asyncio

import pytest

from modelpool_worker.errors import InferenceFailedError, TooFarBehindError
from modelpool_worker.scheduling.job import Job


@pytest.fixture
async def job():
    job = Job(1, 1, asyncio.get_running_loop().create_future())
    yield job
    job.close()


async def begun(work):
    """Start something and let it come as far as it can."""
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0)
    return task


async def test_pieces_come_once_there_are_as_many_as_are_wanted(job):
    reading = await begun(job.next_pieces(least=3))
    for piece in "ab":
        job.emit(0, piece)
        await asyncio.sleep(0)
        assert not reading.done()
    job.emit(0, "c")
    assert await reading == [(0, "a"), (0, "b"), (0, "c")]


@pytest.mark.parametrize("taken", [1, 2], ids=["none is left", "one is left"])
async def test_the_end_brings_what_there_is_however_many_are_wanted(job, taken):
    reading = await begun(job.next_pieces(least=3, most=taken))
    for piece in "ab":
        job.emit(0, piece)
    job.deliver(0, None)
    assert await reading == [(0, "a"), (0, "b")][:taken]
    assert await job.next_pieces(least=3) == [(0, "b")][: 2 - taken]
    assert await job.next_pieces() == []


async def test_an_error_comes_after_the_pieces_before_it(job):
    job.emit(0, "a")
    job.fail(InferenceFailedError("no"))
    assert await job.next_pieces(least=5) == [(0, "a")]
    with pytest.raises(InferenceFailedError):
        await job.next_pieces()


async def test_who_is_too_far_behind_is_ended_and_nothing_is_kept_for_it(job):
    job.most_pieces = 3
    for number in range(3):
        job.emit(0, number)
    assert await job.next_pieces(most=1) == [(0, 0)]
    job.emit(0, 3)
    assert not job.over
    for number in range(4, 1000):
        job.emit(0, number)
    assert job.over
    assert len(job._pieces) == 0
    with pytest.raises(TooFarBehindError, match="expected a client that keeps up"):
        await job.next_pieces()


async def test_who_keeps_up_may_read_any_number_of_pieces(job):
    job.most_pieces = 3
    for number in range(100):
        job.emit(0, number)
        assert await job.next_pieces() == [(0, number)]
