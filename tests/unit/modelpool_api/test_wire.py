"""What worker and operator say to each other, across versions."""

import json

import pytest
from pydantic import ValidationError

from modelpool_api import EvictRequest, HealthCheck, HealthStatus, Pong, WorkerHandle, WorkerState
from modelpool_api.health import NO_PINGS, PingOutcome

PONG = {
    "worker_id": "uid",
    "boot_id": "boot",
    "state": "Idle",
    "seq": 3,
    "timestamp": 0,
    "queue_depth": 0,
    "pending_requests": 0,
    "unused_for": 40.0,
    "transitions": [{"seq": 3, "from": "Ready", "to": "Idle", "age": 1.5}],
}


def test_a_pong_survives_the_wire():
    pong = Pong.model_validate(PONG)
    assert Pong.model_validate_json(pong.model_dump_json(by_alias=True)) == pong
    assert json.loads(pong.model_dump_json(by_alias=True))["transitions"][0]["from"] == "Ready"


def test_a_newer_worker_may_say_more_and_be_in_a_state_not_known_here():
    pong = Pong.model_validate(PONG | {"state": "Sleeping", "dreams": [1]})
    assert pong.state is WorkerState.UNKNOWN


@pytest.mark.parametrize(
    "change",
    [
        {"seq": -1},
        {"pending_requests": -1},
        {"unused_for": -1},
        {"worker_id": "x" * 65},
        {"transitions": PONG["transitions"] * 21},
    ],
    ids=["seq", "pending", "unused", "long id", "many transitions"],
)
def test_garbage_is_no_pong(change):
    with pytest.raises(ValidationError):
        Pong.model_validate(PONG | change)


@pytest.mark.parametrize("reason", ["", "lower", "With space", "X" * 65], ids=["empty", "lower", "space", "long"])
def test_a_reason_is_camel_case(reason):
    with pytest.raises(ValidationError):
        EvictRequest(worker_id="u", boot_id="b", reason=reason)


@pytest.mark.parametrize(
    ("change", "accepts", "evictable"),
    [
        pytest.param({}, True, True, id="idle"),
        pytest.param({"state": "Ready", "unused_for": 29.9}, True, False, id="ready, used lately"),
        pytest.param({"state": "Ready", "pending_requests": 1}, True, False, id="ready, something pending"),
        pytest.param({"state": "Processing"}, True, False, id="processing"),
        pytest.param({"state": "Loading", "unused_for": None}, False, False, id="loading"),
        pytest.param({"state": "Evicting"}, False, False, id="evicting"),
        pytest.param({"state": "Sleeping"}, False, False, id="unknown"),
    ],
)
def test_what_a_handle_answers(change, accepts, evictable):
    handle = WorkerHandle.from_pong(Pong.model_validate(PONG | change))
    assert handle.can_accept_requests is accepts
    assert handle.is_evictable(30) is evictable


OK, AWAY, GARBAGE = PingOutcome.OK, PingOutcome.UNREACHABLE, PingOutcome.GARBAGE


@pytest.mark.parametrize(
    ("pings", "pod_ready", "status"),
    [
        ([], True, HealthStatus.UNKNOWN),
        ([OK], True, HealthStatus.HEALTHY),
        ([AWAY] * 2, False, HealthStatus.SUSPECT),
        ([AWAY] * 3, False, HealthStatus.UNHEALTHY),
        ([AWAY] * 8, True, HealthStatus.SUSPECT),
        ([AWAY] * 9, True, HealthStatus.UNHEALTHY),
        ([GARBAGE] * 3, True, HealthStatus.UNHEALTHY),
        ([AWAY, AWAY, OK, AWAY], False, HealthStatus.SUSPECT),
    ],
    ids=["none", "good", "two", "three", "eight but ready", "nine", "garbage", "forgotten"],
)
def test_health_counts_misses_in_a_row(pings, pod_ready, status):
    record = NO_PINGS
    for ping in pings:
        record = record.after(ping)
    assert record.status(HealthCheck(), pod_ready=pod_ready) is status
