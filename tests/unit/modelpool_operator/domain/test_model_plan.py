"""What becomes of a Model: whom it makes, lets go, keeps, changes and removes, and what its status says."""

from dataclasses import replace
from typing import Any

import pytest

from modelpool_api import WorkerState
from modelpool_operator.api import names
from modelpool_operator.api.names import Reason
from modelpool_operator.domain.model_plan import Demand, ModelSeen, plan_model, template_hash
from modelpool_operator.domain.objects import ModelView, WorkerView, model_view, worker_view
from unit.modelpool_operator.domain.scenes import MODEL, NOW, ago, chain, pong, worker

_S = WorkerState
Json = dict[str, Any]
WORKER: Json = {"pool": "default", "model": MODEL, "memory": "1Gi"}


def model(
    status: Json | None = None, *, worker: Json | None = None, meta: Json | None = None, **spec: Any
) -> ModelView:
    """A Model; ``worker`` replaces fields of its workers' spec, ``spec`` fields of its own."""
    metadata = {"name": "minilm", "namespace": "team-a", "uid": "model-uid", "resourceVersion": "7", "generation": 2}
    body = {"worker": {**WORKER, **(worker or {})}, **spec}
    return model_view({"metadata": {**metadata, **(meta or {})}, "spec": body, "status": status or {}})


TEMPLATE = template_hash(model())


def member(number: int, state: WorkerState | None = _S.READY, *, template: str = TEMPLATE, **more: Any) -> WorkerView:
    """One of the Model's workers, by its number."""
    meta = {
        "name": f"minilm-{number}",
        "uid": f"uid-{number}",
        "labels": {names.LABEL_MODEL: "minilm", names.LABEL_TEMPLATE: template},
        "ownerReferences": [
            {
                "apiVersion": names.API_VERSION,
                "kind": "Model",
                "name": "minilm",
                "uid": "model-uid",
                "controller": True,
            }
        ],
        **more.pop("meta", {}),
    }
    return worker(state, meta=meta, service=False, **more)


def failed(number: int, *, since: float = 1.0, reason: str = "OOMKilled", state: WorkerState = _S.FAILED) -> WorkerView:
    """A worker that has failed so many seconds ago."""
    path = [_S.SPAWNING, _S.LOADING, _S.FAILED] + ([_S.DEAD] if state is _S.DEAD else [])
    status = {"reason": reason, "message": "a sentence", "transitions": chain(*path, seconds=since)}
    return member(number, state, since=since, status=status)


def plan(view: ModelView, *workers: WorkerView, demand: bool = False, **seen: Any):
    return plan_model(ModelSeen(view, workers, demand=Demand(wanted=demand), **seen), NOW)


def test_a_model_that_nobody_asks_costs_nothing_and_is_ready():
    decided = plan(model())
    assert (decided.create, decided.shutdown, decided.keep) == ((), (), frozenset())
    assert decided.gauges["desiredReplicas"] == 0
    assert [(each["type"], each["status"], each["reason"]) for each in decided.status["conditions"]] == [
        ("Ready", "True", "ScaledToZero")
    ]
    assert decided.status["selector"] == "modelpool.dev/model=minilm"
    assert decided.status["template"] == TEMPLATE


def test_demand_makes_one_worker_that_goes_with_its_model():
    (made,) = plan(model(worker={"priority": 5, "eviction": "Never"}), demand=True).create
    assert made["metadata"]["name"] == "minilm-1"
    assert made["metadata"]["labels"][names.LABEL_MODEL] == "minilm"
    assert made["spec"]["service"] is False
    assert (made["spec"]["priority"], made["spec"]["eviction"]) == (5, "Never")
    read = worker_view({**made, "metadata": {**made["metadata"], "uid": "u", "resourceVersion": "1"}})
    assert read.model is not None
    assert (read.model.name, read.model.uid) == ("minilm", "model-uid")


def test_a_worker_that_is_on_its_way_is_enough():
    for state in (None, _S.SPAWNING, _S.LOADING, _S.READY):
        assert plan(model(), member(1, state), demand=True).create == ()


@pytest.mark.parametrize(
    ("status", "workers", "name"),
    [
        pytest.param({}, [], "minilm-1", id="the-first"),
        pytest.param({"serial": 4}, [], "minilm-5", id="after-the-last-known"),
        pytest.param({"serial": 4}, [member(6, _S.EVICTING)], "minilm-7", id="after-one-that-status-does-not-know"),
        pytest.param({"serial": 4}, [member(2, _S.EVICTING)], "minilm-5", id="one-that-goes-is-gone"),
    ],
)
def test_numbers_are_never_used_again(status, workers, name):
    decided = plan(model(status), *workers, demand=True)
    assert [each["metadata"]["name"] for each in decided.create] == [name]


def test_the_highest_number_is_written_down():
    assert plan(model({"serial": 4}), member(6)).status["serial"] == 6
    assert "serial" not in plan(model({"serial": 6}), member(6)).status


def test_what_is_kept_is_the_floor():
    workers = [member(1, _S.IDLE), member(2), member(3)]
    assert len(plan(model(minReplicas=2, maxReplicas=3), *workers).keep) == 2
    assert plan(model(maxReplicas=3), *workers).keep == frozenset()
    assert len(plan(model(maxReplicas=3), *workers, demand=True).keep) == 1


def test_pending_requests_want_more_workers():
    busy = member(1, _S.PROCESSING, status={"pendingRequests": 3})
    told = {busy.uid: pong(_S.PROCESSING, pending=20)}
    assert len(plan(model(maxReplicas=4, targetPending=8), busy, pongs=told).create) == 2
    assert plan(model(maxReplicas=4, targetPending=8), busy).create == ()


def test_a_failure_is_followed_by_a_pause_and_told():
    decided = plan(model(), failed(1), demand=True)
    assert decided.create == ()
    assert decided.wake_after == pytest.approx(9.0)
    told = decided.status["backOff"]
    assert (told["failures"], told["reason"], told["message"]) == (1, "OOMKilled", "a sentence")
    assert told["retryTime"] == ago(-9)
    (ready, reconciling) = decided.status["conditions"]
    assert (ready["type"], ready["status"], ready["reason"]) == ("Ready", "False", "OOMKilled")
    assert reconciling["type"] == "Reconciling"
    assert "another worker is made at" in ready["message"]


def test_after_the_pause_the_next_one_is_made_and_a_second_failure_doubles_it():
    first = plan(model(), failed(1), demand=True).status["backOff"]
    known = model({"backOff": first})
    assert (
        len(plan_model(ModelSeen(known, (failed(1),), demand=Demand(wanted=True)), NOW.replace(minute=5)).create) == 1
    )
    again = plan(known, failed(1), failed(2, since=0.5), demand=True).status["backOff"]
    assert (again["failures"], again["retryTime"]) == (2, ago(-19.5))


def test_a_failure_that_another_try_cannot_mend_ends_the_tries_until_the_template_changes():
    decided = plan(model(), failed(1, since=4000, reason="ModelLoadFailed", state=_S.DEAD), demand=True)
    assert decided.create == ()
    assert "retryTime" not in decided.status["backOff"]
    assert [each["type"] for each in decided.status["conditions"]] == ["Ready", "Stalled"]
    known = {"backOff": decided.status["backOff"]}
    assert plan(model(known), demand=True).create == ()
    mended = plan(model(known, worker={"memory": "2Gi"}), demand=True)
    assert len(mended.create) == 1
    assert mended.status["backOff"] is None


def test_a_retry_time_that_is_no_more_is_removed():
    shown = plan(model(), failed(1)).status["backOff"]
    told = plan(model({"backOff": shown}), failed(2, since=0.1, reason="ModelLoadFailed")).status["backOff"]
    assert told["retryTime"] is None


def test_a_worker_that_has_served_for_a_minute_ends_the_count():
    shown = plan(model(), failed(1)).status["backOff"]
    assert plan(model({"backOff": shown}), member(2, since=61)).status["backOff"] is None
    young = plan(model({"backOff": shown}), member(2, since=59))
    assert "backOff" not in young.status
    assert young.wake_after == pytest.approx(1.0)


def test_a_worker_that_only_waits_and_nobody_waits_for_is_told_to_stop():
    decided = plan(model(), member(1, _S.SPAWNING))
    assert (decided.shutdown, dict(decided.dismiss)) == (("minilm-1",), {})


def test_too_many_pinned_workers_are_asked_to_go():
    workers = [member(number, _S.IDLE, eviction="Never") for number in (1, 2)]
    decided = plan(model(worker={"eviction": "Never"}, minReplicas=1), *workers)
    assert list(decided.dismiss.values()) == [Reason.SCALED_DOWN]


def test_another_template_makes_its_worker_before_the_old_one_goes():
    old = member(1, template="older")
    first = plan(model(minReplicas=1), old)
    assert len(first.create) == 1
    assert dict(first.dismiss) == {}
    assert [each["reason"] for each in first.status["conditions"]] == ["WorkersReady", "Replacing"]
    then = plan(model({"serial": 1}, minReplicas=1), old, member(2))
    assert (then.create, dict(then.dismiss)) == ((), {"uid-1": Reason.REPLACED})
    assert then.keep == {"uid-2"}


def test_what_may_change_is_changed_in_the_workers_and_makes_no_other_ones():
    view = model(worker={"idleTimeoutSeconds": 5, "eviction": "Never"}, minReplicas=1)
    decided = plan(view, member(1), member(2, _S.DEAD))
    assert decided.create == ()
    assert decided.change == {"minilm-1": {"idleTimeoutSeconds": 5, "eviction": "Never"}}
    back = plan(model(minReplicas=1), member(1, evictAfterSeconds=7))
    assert back.change == {"minilm-1": {"evictAfterSeconds": None}}


def test_the_template_is_what_the_spec_says_not_how_it_says_it():
    same = model(worker={"gpus": 0, "priority": 0, "eviction": "Auto", "idleTimeoutSeconds": 9})
    assert template_hash(same) == TEMPLATE
    for change in ({"memory": "2Gi"}, {"gpus": 1}, {"model": {**MODEL, "dtype": "float32"}}):
        assert template_hash(model(worker=change)) != TEMPLATE


def test_what_has_ended_is_removed_after_its_retention_and_the_latest_stay_longest():
    dead = [member(number, _S.DEAD, since=10.0 * number) for number in range(1, 8)]
    assert [name for name, _ in plan(model(), *dead).remove] == ["minilm-6", "minilm-7"]
    assert [name for name, _ in plan(model(), *dead, retention=35).remove] == [f"minilm-{n}" for n in (4, 5, 6, 7)]
    assert plan(model(), failed(1, since=900)).remove == ()


@pytest.mark.parametrize(
    ("asked", "shown", "written"),
    [
        pytest.param(None, None, None, id="nobody-has-asked"),
        pytest.param(60, None, 60, id="seconds"),
        pytest.param(None, 60, 60, id="the-last-word-holds"),
        pytest.param(-5, 60, -1, id="for-as-long-as-may-be"),
        pytest.param(10**9, None, 86_400, id="a-day-at-most"),
        pytest.param(0, 60, 0, id="let-go"),
    ],
)
def test_keep_alive_is_what_was_asked_last(asked, shown, written):
    view = model({} if shown is None else {"keepAliveSeconds": shown})
    decided = plan_model(ModelSeen(view, (member(1),), demand=Demand(keep_alive=asked)), NOW)
    assert decided.status.get("keepAliveSeconds", shown) == written
    assert decided.heard == asked


@pytest.mark.parametrize("state", [None, _S.EVICTING, _S.DEAD])
def test_keep_alive_ends_with_the_workers_that_it_was_said_of(state):
    workers = (member(1, state),) if state else ()
    decided = plan_model(ModelSeen(model({"keepAliveSeconds": -1}), workers, demand=Demand(keep_alive=-1)), NOW)
    assert decided.status["keepAliveSeconds"] is None


def test_a_model_whose_worker_can_never_fit_is_stalled_with_its_reason():
    stuck = member(1, _S.SPAWNING, status={"reason": "ExceedsPool", "message": "needs more than there is"})
    (ready, stalled) = plan(model(), stuck, demand=True).status["conditions"]
    assert (ready["status"], ready["reason"]) == ("False", "ExceedsPool")
    assert (stalled["type"], stalled["message"]) == ("Stalled", "needs more than there is")


def test_what_keeps_a_worker_from_serving_is_told():
    loading = member(1, _S.LOADING, status={"reason": "ContainerStarted", "message": "loads"})
    ready = plan(model(), loading, demand=True).status["conditions"][0]
    assert (ready["status"], ready["reason"], ready["message"]) == ("False", "ContainerStarted", "loads")


def test_the_latest_cold_start_is_shown():
    fast, slow = {"total": 3.0}, {"total": 9.0}
    workers = [
        member(1, status={"coldStartSeconds": slow}, since=100),
        member(2, status={"coldStartSeconds": fast}, since=50),
        member(3, status={"coldStartSeconds": {"total": 99.0}, "restarts": 1}, since=1),
    ]
    assert plan(model(maxReplicas=3), *workers).status["coldStartSeconds"] == fast


def test_counts_by_state_may_wait_and_lose_what_is_no_more():
    shown = {"replicasByState": {"Loading": 1, "Ready": 1}, "desiredReplicas": 0}
    decided = plan(model(shown), member(1), member(2, _S.IDLE))
    assert decided.gauges == {"replicasByState": {"Loading": None, "Ready": 1, "Idle": 1}}
    assert "replicasByState" not in decided.status


def test_nothing_is_written_twice():
    workers = (member(1, _S.LOADING),)
    first = plan(model(), *workers, demand=True)
    shown = {name: value for name, value in {**first.status, **first.gauges}.items() if value is not None}
    again = plan(model(shown), *workers, demand=True)
    assert (again.status, again.gauges) == ({}, {})


def shown_by(*plans: Any) -> Json:
    """The status after these plans were written, one after the other."""
    status: Json = {}
    for each in plans:
        status |= {**each.status, **each.gauges}
    return {name: value for name, value in status.items() if value is not None}


def test_a_request_and_its_end_are_no_news_that_is_written_at_once():
    """Each flip of the load would else be a write, and news for every gateway."""
    first = plan(model(), member(1))
    busy = member(1, _S.PROCESSING, status={"pendingRequests": 1})
    during = plan(model(shown_by(first)), busy, pongs={busy.uid: pong(_S.PROCESSING, pending=1)})
    assert during.status == {}
    assert during.gauges["desiredReplicas"] == 1
    after = plan(model(shown_by(first, during)), member(1))
    assert after.status == {}
    assert after.gauges["desiredReplicas"] == 0


def test_a_worker_that_serves_is_told_though_nobody_asks_now():
    (ready,) = (
        plan(model(), member(1, _S.IDLE)).gauges.get("conditions")
        or plan(model(), member(1, _S.IDLE)).status["conditions"]
    )
    assert (ready["reason"], ready["message"]) == ("WorkersReady", "1 serve")


def test_a_second_worker_that_keeps_failing_is_made_after_pauses_though_the_first_serves():
    view, first = model(minReplicas=2, maxReplicas=2), member(1, since=300)
    decided = plan(view, first, failed(2, since=0.1))
    assert decided.create == ()
    assert decided.status["backOff"]["failures"] == 1
    known = model({"backOff": decided.status["backOff"]}, minReplicas=2, maxReplicas=2)
    again = plan_model(ModelSeen(known, (first, failed(2, since=0.1), failed(3, since=-11))), NOW.replace(second=17))
    assert again.create == ()
    assert again.status["backOff"]["failures"] == 2


def test_a_model_that_can_never_load_is_not_ready_though_nobody_asks():
    decided = plan(model(), failed(1, reason="ModelLoadFailed"))
    (ready, stalled) = decided.status["conditions"]
    assert (ready["status"], ready["reason"]) == ("False", "ModelLoadFailed")
    assert stalled["type"] == "Stalled"


@pytest.mark.parametrize("state", [_S.READY, _S.IDLE])
def test_who_is_more_than_may_be_is_asked_to_go_whatever_a_request_has_said(state):
    workers = [member(number, state) for number in (1, 2)]
    decided = plan(model({"keepAliveSeconds": -1}, maxReplicas=0), *workers)
    assert set(decided.dismiss.values()) == {Reason.SCALED_DOWN}
    assert len(decided.dismiss) == 2
    assert len(plan(model({"keepAliveSeconds": -1}, maxReplicas=1), *workers).dismiss) == 1
    assert dict(plan(model({"keepAliveSeconds": -1}, maxReplicas=2), *workers).dismiss) == {}


def test_an_operator_that_has_just_begun_lets_nobody_go():
    """It may not have heard yet of those who wait."""
    workers = (member(1, _S.SPAWNING), member(2))
    decided = plan_model(ModelSeen(model(maxReplicas=2), workers, demand=Demand(known=False)), NOW)
    assert decided.shutdown == ()
    assert decided.keep == {"uid-1", "uid-2"}


def test_an_uninstall_makes_none_and_its_word_lapses():
    drained = model(meta={"annotations": {names.ANNOTATION_DRAINED: ago(100)}}, minReplicas=1)
    decided = plan(drained)
    assert (decided.create, decided.wake_after) == ((), pytest.approx(20.0))
    lapsed = replace(drained, drained=NOW.replace(minute=0))
    assert len(plan(lapsed).create) == 1
    nonsense = model(meta={"annotations": {names.ANNOTATION_DRAINED: "soon"}}, minReplicas=1)
    assert len(plan(nonsense).create) == 1


def test_a_deleted_model_makes_nothing():
    assert plan(model(meta={"deletionTimestamp": ago(1)}, minReplicas=3), demand=True).create == ()
