"""Conditions as generic tools read them: ``kubectl wait``, Helm, Flux, Argo CD."""

from datetime import timedelta

import pytest

from modelpool_api import STATES, HealthStatus, WorkerState
from modelpool_operator.api.names import Reason
from modelpool_operator.domain.conditions import Condition, merged, worker_conditions
from unit.modelpool_operator.domain.scenes import NOW, pod, running

_S = WorkerState
SERVING = (_S.READY, _S.PROCESSING, _S.IDLE)


def shown(state, *, charged=True, quota=None, of=None, health=HealthStatus.HEALTHY, failed=False, **more):
    found = worker_conditions(
        state, "Why", "because", charged=charged, quota=quota, pod=of, health=health, failed=failed, **more
    )
    assert len({each.type for each in found}) == len(found)
    return {each.type: (each.true, each.reason) for each in found}


@pytest.mark.parametrize("state", STATES, ids=str)
def test_ready_is_true_exactly_while_the_worker_serves(state):
    assert shown(state)["Ready"] == (state in SERVING, "Why")
    assert shown(state)["ModelLoaded"][0] is (state in SERVING)


@pytest.mark.parametrize("state", STATES, ids=str)
def test_reconciling_is_there_only_while_something_is_going_on(state):
    assert ("Reconciling" in shown(state)) is (state in (_S.SPAWNING, _S.LOADING, _S.EVICTING))


@pytest.mark.parametrize("state", [_S.FAILED, _S.DEAD], ids=str)
def test_stalled_is_there_once_a_worker_has_failed_and_stays_when_it_is_dead(state):
    assert shown(state, failed=True)["Stalled"] == (True, "Why")
    assert "Stalled" not in shown(_S.DEAD, failed=False)


@pytest.mark.parametrize("reason", [Reason.EXCEEDS_POOL, Reason.CONFIG])
def test_a_worker_that_can_never_fit_is_stalled_not_reconciling(reason):
    found = shown(_S.SPAWNING, charged=False, quota=(reason, "never"))
    assert found["Stalled"] == (True, reason)
    assert "Reconciling" not in found


@pytest.mark.parametrize(
    ("state", "charged", "quota", "expected"),
    [
        (_S.SPAWNING, True, None, (True, "QuotaReserved")),
        (_S.SPAWNING, False, None, (False, "WaitingForQuota")),
        (_S.SPAWNING, False, (Reason.POOL_HELD, "held"), (False, "PoolHeld")),
        (_S.FAILED, True, None, (True, "QuotaReserved")),
        (_S.DEAD, False, None, (False, "Released")),
    ],
    ids=["charged", "waiting", "refused", "failed-still-charged", "released"],
)
def test_quota_reserved_says_whether_the_ledger_holds_an_entry(state, charged, quota, expected):
    assert shown(state, charged=charged, quota=quota)["QuotaReserved"] == expected


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (None, (False, "NoPod")),
        (pod(scheduled=False), (False, "Pending")),
        (running(), (True, "Scheduled")),
    ],
    ids=["none", "waits", "on-node"],
)
def test_pod_scheduled(of, expected):
    assert shown(_S.SPAWNING, of=of)["PodScheduled"] == expected


@pytest.mark.parametrize(
    ("state", "health", "expected"),
    [
        (_S.READY, HealthStatus.HEALTHY, True),
        (_S.READY, HealthStatus.SUSPECT, True),
        (_S.READY, HealthStatus.UNHEALTHY, False),
        (_S.READY, HealthStatus.UNKNOWN, None),
        (_S.LOADING, HealthStatus.HEALTHY, False),
    ],
)
def test_healthy_is_unknown_until_a_ping_has_been_made(state, health, expected):
    assert shown(state, health=health)["Healthy"][0] is expected


@pytest.mark.parametrize(
    ("reason", "kept"),
    [("Healthy", True), ("Suspect", True), ("Unhealthy", False), ("Loading", None), (None, None)],
    ids=str,
)
def test_what_status_says_of_the_health_holds_until_this_operator_knows_better(reason, kept):
    """Else a restarted operator would write twice for each of a thousand workers, to say the same in the end."""
    before = [{"type": "Healthy", "reason": reason}] if reason else []
    told = [{"type": "Ready", "reason": "ModelLoaded"}, *before]
    assert shown(_S.READY, health=HealthStatus.UNKNOWN, shown=told)["Healthy"][0] is kept


def test_a_condition_keeps_its_time_while_its_status_stays():
    first = merged(
        (), [Condition("Ready", False, "Loading"), Condition("Healthy", None, "Unknown")], generation=1, now=NOW
    )
    later = NOW + timedelta(seconds=9)
    second = merged(
        first, [Condition("Ready", False, "Evicting"), Condition("Healthy", True, "Healthy")], generation=2, now=later
    )
    assert [each["lastTransitionTime"] for each in second] == [
        "2026-01-02T03:04:05.000000Z",
        "2026-01-02T03:04:14.000000Z",
    ]
    assert [each["status"] for each in first] == ["False", "Unknown"]
    assert {each["observedGeneration"] for each in second} == {2}


def test_a_service_of_the_workers_name_that_is_not_ours_is_a_condition_only_while_it_is_there():
    assert shown(_S.READY, service_taken=True)["ServiceReady"] == (False, "ServiceNameTaken")
    assert "ServiceReady" not in shown(_S.READY, service_taken=False)
