"""Batches that run side by side."""

import asyncio
import contextlib
import threading

import pytest

from modelpool_worker.capabilities.base import Prepared
from modelpool_worker.errors import InferenceFailedError
from modelpool_worker.metrics import WorkerMetrics
from modelpool_worker.scheduling.batch_loop import BatchLoop
from modelpool_worker.scheduling.choices import BatchLimits
from modelpool_worker.scheduling.request_queue import RequestQueue
from modelpool_worker.threads import model_thread


class Gated:
    """Each batch says what it holds when it starts, and ends when the gate of its first value opens."""

    def __init__(self):
        self.started = []
        self.gates = {}
        self.broken = False

    def gate(self, value):
        return self.gates.setdefault(value, threading.Event())

    def run_batch(self, values, wanted):
        self.started.append(list(values))
        assert self.gate(values[0]).wait(20)
        if values[0].startswith("bad"):
            raise ValueError(values[0])
        return [value.upper() for value in values]

    def warm_up(self):
        if self.broken:
            raise ValueError("broken")


class Lanes:
    def __init__(self, number, items=16):
        self.capability, self.metrics = Gated(), WorkerMetrics()
        self.queue = RequestQueue(max_requests=100, max_inputs=1000)
        self.threads = model_thread(number)
        limits = BatchLimits(items=items, tokens=1000)
        self.loop = BatchLoop(self.capability, self.queue, limits, self.threads, self.metrics, lanes=number)
        self.life = asyncio.create_task(self.loop.run())

    def ask(self, *values):
        job = self.queue.open(len(values))
        self.queue.put(job, [Prepared(value, cost=1, tokens=1) for value in values])
        return job

    async def until_started(self, *batches):
        async with asyncio.timeout(20):
            while sorted(self.capability.started) != sorted(map(list, batches)):
                assert not self.life.done()
                await asyncio.sleep(0.001)

    def running(self):
        return self.metrics.registry.get_sample_value("modelpool_worker_running_items")

    async def end(self):
        self.life.cancel()
        for gate in self.capability.gates.values():
            gate.set()
        with contextlib.suppress(asyncio.CancelledError):
            await self.life
        self.threads.shutdown()


@pytest.fixture
async def make_lanes():
    made = []

    def make(number, **limits):
        made.append(Lanes(number, **limits))
        return made[-1]

    yield make
    for each in made:
        await each.end()


async def test_lanes_share_what_waits_and_none_waits_for_another(make_lanes):
    lanes = make_lanes(2)
    one = lanes.ask("a", "b", "c")
    await lanes.until_started(["a", "b"], ["c"])
    assert lanes.running() == 3
    lanes.capability.gate("c").set()
    two = lanes.ask("d", "e")
    await lanes.until_started(["a", "b"], ["c"], ["d", "e"])
    lanes.capability.gate("d").set()
    assert await two.answer == ["D", "E"]
    assert not one.answer.done()
    lanes.capability.gate("a").set()
    assert await one.answer == ["A", "B", "C"]
    assert lanes.running() == 0


async def test_a_share_is_no_larger_than_a_batch_may_be(make_lanes):
    lanes = make_lanes(2, items=2)
    lanes.ask("a", "b", "c", "d", "e")
    await lanes.until_started(["a", "b"], ["c", "d"])


async def test_what_fails_in_one_lane_is_nothing_to_the_other(make_lanes):
    lanes = make_lanes(2)
    bad, good = lanes.ask("bad"), lanes.ask("good")
    await lanes.until_started(["bad"], ["good"])
    lanes.capability.gate("bad").set()
    with pytest.raises(InferenceFailedError):
        await bad.answer
    more = lanes.ask("more")
    lanes.capability.gate("more").set()
    assert await more.answer == ["MORE"]
    assert not good.answer.done()
    lanes.capability.gate("good").set()
    assert await good.answer == ["GOOD"]


async def test_a_model_beyond_repair_ends_all_lanes(make_lanes):
    lanes = make_lanes(2)
    bad, _good = lanes.ask("bad"), lanes.ask("good")
    await lanes.until_started(["bad"], ["good"])
    lanes.capability.broken = True
    lanes.capability.gate("bad").set()
    with pytest.raises(InferenceFailedError):
        await bad.answer
    async with asyncio.timeout(20):
        await lanes.life
