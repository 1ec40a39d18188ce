"""Rows join, step and leave; what goes wrong with one is not the others' trouble."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from modelpool_worker.capabilities.base import Piece, Prepared
from modelpool_worker.errors import InferenceFailedError, InvalidRequestError, OutOfMemoryError, TooFarBehindError
from modelpool_worker.metrics import WorkerMetrics
from modelpool_worker.scheduling.choices import BatchLimits
from modelpool_worker.scheduling.request_queue import RequestQueue
from modelpool_worker.scheduling.step_loop import StepLoop


class Counter:
    """A row counts down from its value, a number a turn; "bad" is refused, "poison" and "huge" fail the turn."""

    def __init__(self):
        self.rows = {}
        self.turns = []
        self.broken = False

    def turn(self, joins, leaves):
        for key in leaves:
            del self.rows[key]
        pieces = [Piece(key, None, last=True, error=InvalidRequestError("no")) for key in joins if joins[key] == "bad"]
        self.rows |= {key: value for key, value in joins.items() if value != "bad"}
        self.turns.append(sorted(map(str, self.rows.values())))
        if "poison" in self.rows.values():
            raise RuntimeError("lost")
        if "huge" in self.rows.values():
            raise MemoryError("swordfish")
        for key in list(self.rows):
            self.rows[key] -= 1
            pieces.append(Piece(key, self.rows[key], last=self.rows[key] == 0))
            if self.rows[key] == 0:
                del self.rows[key]
        return pieces

    def reset(self):
        self.rows.clear()

    def warm_up(self):
        if self.broken:
            raise RuntimeError("device lost")


@pytest.fixture
async def site():
    model, queue = Counter(), RequestQueue(max_requests=100, max_inputs=100)
    thread = ThreadPoolExecutor(1)
    loop = StepLoop(model, queue, BatchLimits(items=3, tokens=100), thread, WorkerMetrics())

    def ask(*values, cost=1):
        job = queue.open(len(values))
        queue.put(job, [Prepared(value, cost, cost) for value in values])
        return job

    running = asyncio.create_task(loop.run())
    yield model, queue, ask, running
    running.cancel()
    thread.shutdown()


async def heard(job):
    return [piece async for piece in job.pieces()]


async def test_pieces_come_in_order_and_end_with_the_last_row(site):
    _model, _queue, ask, _running = site
    assert await heard(ask(2, 1)) == [(0, 1), (1, 0), (0, 0)]


async def test_rows_of_several_requests_step_together_and_a_newcomer_joins_them(site):
    model, _queue, ask, _running = site
    first = ask(4)
    pieces = first.pieces()
    assert await anext(pieces) == (0, 3)
    second = ask(1)
    assert await heard(second) == [(0, 0)]
    assert [left async for left in pieces] == [(0, 2), (0, 1), (0, 0)]
    assert any(len(turn) == 2 for turn in model.turns)


async def test_a_row_that_is_refused_ends_only_its_own_request(site):
    _model, _queue, ask, _running = site
    good, bad = ask(2), ask("bad")
    with pytest.raises(InvalidRequestError):
        await heard(bad)
    assert await heard(good) == [(0, 1), (0, 0)]


async def test_a_client_that_leaves_frees_its_rows_before_the_next_join(site):
    model, queue, ask, _running = site
    endless = ask(10**9, 10**9, 10**9)  # all the places there are
    assert await anext(endless.pieces()) == (0, 10**9 - 1)
    waiting = ask(1)
    queue.close(endless)
    assert await heard(waiting) == [(0, 0)]
    assert model.rows == {}


async def test_a_client_too_far_behind_frees_its_rows_and_the_others_go_on(site):
    model, _queue, ask, _running = site
    slow = ask(10**9, 10**9)
    slow.most_pieces = 100
    steady = ask(200)
    waiting = ask(2, 1)  # one of them has to wait for a place
    heard_by_others = await asyncio.wait_for(asyncio.gather(heard(steady), heard(waiting)), 20)
    assert [len(pieces) for pieces in heard_by_others] == [200, 3]
    with pytest.raises(TooFarBehindError):
        await slow.next_pieces()
    assert model.rows == {}


@pytest.mark.parametrize(
    ("value", "error"),
    [pytest.param("poison", InferenceFailedError, id="anything"), pytest.param("huge", OutOfMemoryError, id="memory")],
)
async def test_a_failed_turn_fails_its_rows_with_its_reason_and_the_next_request_is_served(site, value, error):
    _model, _queue, ask, _running = site
    jobs = [ask(5), ask(value)]
    for job in jobs:
        with pytest.raises(InferenceFailedError) as told:
            await heard(job)
        assert type(told.value) is error
        assert "swordfish" not in str(told.value)
    assert await heard(ask(1)) == [(0, 0)]


async def test_a_model_beyond_repair_ends_the_loop(site):
    model, _queue, ask, running = site
    model.broken = True
    with pytest.raises(InferenceFailedError):
        await heard(ask("poison"))
    await asyncio.wait_for(running, 10)
