"""The controller's own bookkeeping: nothing is lost while it may not act."""

import time
from typing import Any, cast

import pytest

from modelpool_operator.kube.client import KubeClient
from modelpool_operator.metrics import OperatorMetrics
from modelpool_operator.runtime.controller import Controller
from modelpool_operator.settings import OperatorSettings


@pytest.fixture
async def controller():
    """A controller that has no connection and makes no request."""
    made = Controller(KubeClient(cast(Any, None)), OperatorSettings(), OperatorMetrics())
    for cache in (made.knowledge.workers, made.knowledge.pools, made.knowledge.pods):
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


@pytest.mark.parametrize("missing", ["workers", "pools", "pods"])
async def test_nothing_is_decided_before_every_kind_has_been_listed(controller, missing):
    controller.elector._renewed = time.monotonic()
    getattr(controller.knowledge, missing).complete = False

    await controller._one(("worker", "team-a", "minilm"))
    controller._take_up()

    assert len(controller._queue) == 0
    controller.elector._renewed = None
