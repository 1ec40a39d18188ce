"""While nothing waits, nobody holds what has run: memory that is counted until it is let go of would stay taken."""

import asyncio
import gc
import threading
import weakref

import pytest

from modelpool_worker.capabilities.base import Loaded, Piece, Prepared
from modelpool_worker.threads import in_thread


class Value:
    """What an input becomes."""


class Batches:
    """Answers at once, and knows which of its values somebody still holds."""

    name = "test"

    def __init__(self):
        self.values = []

    def load(self, request):
        return Loaded(device="cpu", dtype="float32")

    def warm_up(self):
        pass

    def prepare(self, inputs):
        made = [Value() for _ in inputs]
        self.values += [weakref.ref(each) for each in made]
        return [Prepared(each, 1, 1) for each in made]

    def run_batch(self, values, wanted):
        return [0 for _ in values]

    def unload(self):
        pass

    def accelerator_mib(self):
        return 0


class Steps(Batches):
    """Every row is over after one turn."""

    def turn(self, joins, leaves):
        return [Piece(key, "x", last=True) for key in joins]

    def reset(self):
        pass


class Endless(Batches):
    """Rows say a piece a turn until their client leaves; each turn but the first waits for ``go_on``."""

    def __init__(self):
        super().__init__()
        self.rows = set()
        self.second, self.go_on = threading.Event(), threading.Event()

    def turn(self, joins, leaves):
        if not joins:
            self.second.set()
            assert self.go_on.wait(20)
        self.rows = (self.rows | joins.keys()) - set(leaves)
        return [Piece(key, "x") for key in self.rows]

    def reset(self):
        pass


async def test_a_row_that_goes_on_holds_nothing_of_what_it_was_made_of(make_worker):
    worker = make_worker(Endless())
    life = asyncio.create_task(worker.runner.live())
    await worker.reach("Ready")
    with worker.runner.admitted(1) as job:
        await worker.runner.submit(job, ["a"])
        assert await job.next_pieces(most=1) == [(0, "x")]
        assert await asyncio.to_thread(worker.capability.second.wait, 20)
        gc.collect()
        assert [value() for value in worker.capability.values] == [None]
        worker.capability.go_on.set()
    life.cancel()
    await asyncio.gather(life, return_exceptions=True)


@pytest.mark.parametrize("make", [Batches, Steps], ids=["batches", "steps"])
async def test_an_idle_worker_holds_nothing_of_the_last_request(make_worker, make):
    worker = make_worker(make())
    life = asyncio.create_task(worker.runner.live())
    await worker.reach("Ready")
    with worker.runner.admitted(2) as job:
        await worker.runner.compute(job, ["a", "b"])
    del job
    # the thread forgets its work before it takes the next one, and meanwhile the loop comes to wait
    await in_thread(worker.runner._model_thread, lambda: None)
    gc.collect()
    assert [value() for value in worker.capability.values] == [None, None]
    life.cancel()
    await asyncio.gather(life, return_exceptions=True)
