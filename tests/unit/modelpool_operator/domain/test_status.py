"""The fields of status beside the state, and when a load figure is worth a write."""

import pytest

from modelpool_api import WorkerState
from modelpool_operator.domain.status import status_gauges
from modelpool_operator.domain.worker_plan import plan_worker
from unit.modelpool_operator.domain.scenes import NOW, ago, container, pod, pong, running, seen, worker

_S = WorkerState
LOADED = (_S.LOADING, _S.READY)


@pytest.mark.parametrize(
    ("shown", "told", "gauges"),
    [
        pytest.param({}, pong(pending=2), {"pendingRequests": 2, "queueDepth": 0}, id="load"),
        pytest.param({"pendingRequests": 2, "queueDepth": 0}, pong(pending=2), {}, id="same-load"),
        pytest.param(
            {"pendingRequests": 0, "queueDepth": 0},
            pong(unused=5),
            {"lastUsedTime": "2026-01-02T03:04:00Z"},
            id="last-used",
        ),
        pytest.param(
            {"pendingRequests": 0, "queueDepth": 0, "lastUsedTime": ago(6.5)}, pong(unused=5), {}, id="clock-noise"
        ),
        pytest.param(
            {"pendingRequests": 1, "queueDepth": 0, "memoryMiB": {"declared": 1024, "measured": 1000}},
            pong(pending=1, measured=1040),
            {},
            id="memory-noise",
        ),
        pytest.param(
            {"pendingRequests": 1, "queueDepth": 0, "memoryMiB": {"declared": 1024, "measured": 1000}},
            pong(pending=1, measured=1200),
            {"memoryMiB": {"declared": 1024, "measured": 1200}},
            id="memory",
        ),
    ],
)
def test_gauges_that_differ_enough(shown, told, gauges):
    assert status_gauges(worker(status=shown), told, NOW) == gauges


def test_a_worker_on_its_way_out_has_nothing_pending():
    of = worker(_S.EVICTING, status={"pendingRequests": 3, "queueDepth": 1})
    assert status_gauges(of, None, NOW) == {"pendingRequests": 0, "queueDepth": 0}


def loaded(of, started=4.0):
    boxed = pod(container(running=True, started=started), ready=True, lifted=7)
    told = pong(_S.READY, LOADED).model_copy(update={"phases": {"load": 2.25}})
    return plan_worker(seen(of, pod=boxed, pong=told), NOW)


def test_a_cold_start_is_told_by_phase():
    plan = loaded(worker(_S.LOADING, since=10))
    assert plan.fields["coldStartSeconds"] == {"load": 2.25, "total": 10.0, "quota": 3.0, "start": 3.0}
    assert plan.fields["device"] == "cpu"
    assert plan.fields["mirrored"] == {"bootID": "boot-1", "seq": 1}


def test_a_reload_after_a_restart_is_not_the_cold_start():
    of = worker(_S.LOADING, since=10, status={"readyTime": ago(100)})
    plan = loaded(of)
    assert "coldStartSeconds" not in plan.fields
    assert plan.fields["readyTime"] == "2026-01-02T03:04:05.000000Z"


def test_restarts_never_count_down():
    """A kubelet that forgot old containers does not make status forget them."""
    of = worker(_S.READY, status={"restarts": 3})
    assert "restarts" not in plan_worker(seen(of, pod=running(), pong=pong()), NOW).fields


def test_the_end_of_a_pod_that_is_deleted_is_no_restart():
    of = worker(_S.EVICTING, status={"restarts": 0})
    gone = pod(container(exit_code=143, over=True), deleting=True)
    assert "restarts" not in plan_worker(seen(of, pod=gone), NOW).fields


def test_nothing_is_written_where_status_is_true_already():
    of = worker(_S.READY, since=5)
    sight = {"pod": running(), "pong": pong()}
    first = plan_worker(seen(of, **sight), NOW)
    again = plan_worker(seen(worker(_S.READY, since=5, status={**first.fields, **first.gauges}), **sight), NOW)
    assert (again.fields, again.gauges) == ({}, {})
