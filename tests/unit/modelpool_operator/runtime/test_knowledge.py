"""What the operator puts together from caches and pings."""

import pytest

from modelpool_api import WorkerState
from modelpool_api.health import HealthRecord, PingOutcome
from modelpool_operator.runtime.knowledge import Knowledge
from unit.modelpool_operator.domain.scenes import MODEL, pong

_S = WorkerState
MISS = HealthRecord(3, PingOutcome.UNREACHABLE)
WELL = HealthRecord(0, PingOutcome.OK)
GARBAGE = HealthRecord(3, PingOutcome.GARBAGE)


def meta(name, **more):
    return {"namespace": "team-a", "name": name, "uid": f"{name}-uid", "resourceVersion": "1", **more}


def know(records, *, ready=True, state=_S.READY):
    known = Knowledge(monotonic=lambda: 50.0)
    for number, record in enumerate(records):
        name = f"w{number}"
        spec = {"pool": "default", "model": MODEL, "memory": "1Gi"}
        known.workers.observe({"metadata": meta(name), "spec": spec, "status": {"state": str(state)}})
        owner = [{"uid": f"{name}-uid", "controller": True}]
        known.pods.observe(
            {
                "metadata": meta(f"{name}-{name}-uid"[: len(name) + 6], ownerReferences=owner),
                "status": {"conditions": [{"type": "Ready", "status": str(ready)}]},
            }
        )
        known.health[f"{name}-uid"] = record
    return known


@pytest.mark.parametrize(
    ("records", "options", "cut_off"),
    [
        pytest.param([MISS] * 3, {}, True, id="all-three"),
        pytest.param([MISS] * 2, {}, False, id="two-are-too-few"),
        pytest.param([MISS] * 3 + [WELL] * 3, {}, True, id="half"),
        pytest.param([MISS] * 3 + [WELL] * 4, {}, False, id="less-than-half"),
        pytest.param([MISS] * 3, {"ready": False}, False, id="the-kubelet-sees-it-too"),
        pytest.param([GARBAGE] * 5, {}, False, id="garbage-is-their-fault"),
        pytest.param([MISS] * 3, {"state": _S.LOADING}, False, id="loading-is-not-asked"),
    ],
)
def test_when_many_ready_workers_are_unreachable_at_once_it_is_us(records, options, cut_off):
    assert know(records, **options).cut_off() is cut_off


def test_a_pod_of_the_workers_name_that_belongs_to_somebody_else_is_not_its_pod():
    known = know([WELL])
    (worker,) = known.workers.values()
    assert known.pod_of(worker) is not None
    foreign = meta(worker.pod_name, ownerReferences=[{"uid": "another", "controller": True}], resourceVersion="2")
    known.pods.observe({"metadata": foreign})
    assert known.pod_of(worker) is None


def test_the_time_unused_is_carried_on_while_no_news_come():
    known = know([WELL])
    known.pongs["w0-uid"], known.heard["w0-uid"] = pong(unused=7.0), 40.0
    assert known.pong_now("w0-uid").unused_for == 17.0
    known.pongs["w0-uid"] = pong(_S.PROCESSING, unused=0.0, pending=1)
    assert known.pong_now("w0-uid").unused_for == 0.0


def test_all_that_is_known_of_a_worker_is_dropped_with_it():
    known = know([WELL])
    known.pongs["w0-uid"], known.heard["w0-uid"] = pong(), 1.0
    known.deaf.add("w0-uid")
    known.forget_worker("w0-uid")
    assert not known.pongs
    assert not known.heard
    assert not known.health
    assert not known.deaf
