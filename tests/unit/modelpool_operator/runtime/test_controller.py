"""The controller's own bookkeeping: nothing is lost while it may not act."""

import asyncio
import time
from typing import Any, cast

import pytest

from modelpool_operator.domain.errors import UnreachableError
from modelpool_operator.kube.client import KubeClient
from modelpool_operator.metrics import OperatorMetrics
from modelpool_operator.runtime.controller import Controller
from modelpool_operator.runtime.sweeper import Changes
from modelpool_operator.settings import OperatorSettings

WORKER = {
    "metadata": {"namespace": "team-a", "name": "minilm", "uid": "u", "resourceVersion": "1"},
    "spec": {
        "pool": "default",
        "memory": "1Gi",
        "model": {"name": "m", "capability": "text-embedding", "source": "file:///m"},
    },
}


@pytest.fixture
async def controller():
    """A controller that has no connection and makes no request."""
    made = Controller(KubeClient(cast(Any, None)), OperatorSettings(), OperatorMetrics())
    for cache in (made.knowledge.workers, made.knowledge.pools, made.knowledge.models, made.knowledge.pods):
        cache.complete = True
    yield made
    await made.close()


async def test_work_passed_over_while_the_lease_had_lapsed_is_taken_up_once_it_is_renewed(controller):
    """The Lease may lapse and come back between two looks at it: nobody is told, and still nothing is lost."""
    await controller._one(("worker", "team-a", "minilm"))
    controller._take_up()
    assert len(controller._queue) == 0

    controller.elector._renewed = time.monotonic()
    controller._take_up()

    assert len(controller._queue) == 1
    controller.elector._renewed = None


async def test_pings_that_ended_with_the_lease_begin_again_though_nobody_says_that_it_is_back(controller):
    """A lapse that only the maintenance pass has seen: without a look at each worker nobody would hear of any."""
    controller.knowledge.workers.observe(WORKER)
    await controller._maintain()
    assert len(controller._queue) == 0

    controller.elector._renewed = time.monotonic()
    await controller._maintain()
    assert len(controller._queue) == 1
    assert await controller._queue.get() == ("worker", "team-a", "minilm")
    controller._queue.done(("worker", "team-a", "minilm"))

    await controller._maintain()
    assert len(controller._queue) == 0
    controller.elector._renewed = None


@pytest.mark.parametrize("missing", ["workers", "pools", "models", "pods"])
async def test_nothing_is_decided_before_every_kind_has_been_listed(controller, missing):
    controller.elector._renewed = time.monotonic()
    getattr(controller.knowledge, missing).complete = False

    await controller._one(("worker", "team-a", "minilm"))
    controller._take_up()

    assert len(controller._queue) == 0
    controller.elector._renewed = None


async def test_when_the_api_server_is_back_nobody_waits_for_the_end_of_a_pause(controller):
    """The pauses of what failed meanwhile may be a minute long by then."""
    task = ("worker", "team-a", "minilm")
    controller.knowledge.workers.observe(WORKER)
    controller._swept(Changes(set(), set(), set(), set()))
    assert await controller._queue.get() == task
    controller._queue.done(task)
    controller._queue.retry(task)

    controller._swept(Changes(set(), set(), set(), set()))
    assert len(controller._queue) == 0

    controller._sweeper.failing = True
    controller._swept(Changes(set(), set(), set(), set()))
    assert len(controller._queue) == 1


async def test_a_sweep_that_fails_is_known_until_the_next_good_one_was_reported(controller):
    answers = iter([UnreachableError("away"), None, None])
    reported: list[bool] = []

    async def sweep() -> None:
        if (error := next(answers)) is not None:
            raise error
        reported.append(sweeper.failing)

    async def sleep(_: float) -> None:
        if len(reported) == 2:
            raise asyncio.CancelledError

    sweeper = controller._sweeper
    sweeper.sweep = sweep
    with pytest.raises(asyncio.CancelledError):
        await sweeper.run(sleep)
    assert reported == [True, False]
