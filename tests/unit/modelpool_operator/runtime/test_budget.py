"""The budget of load writes, and the judging of health: counted, never timed."""

import pytest

from modelpool_api import HealthCheck, HealthStatus
from modelpool_api.health import NO_PINGS, PingOutcome
from modelpool_operator.runtime.budget import WriteBudget

CHECK = HealthCheck(failure_threshold=3)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def take_all(budget: WriteBudget) -> int:
    taken = 0
    while budget.take():
        taken += 1
    return taken


def test_a_burst_then_so_many_a_second():
    clock = Clock()
    budget = WriteBudget(50, burst=10, monotonic=clock)
    assert take_all(budget) == 10
    assert budget.wait() == pytest.approx(0.02)
    clock.now += 0.1
    assert take_all(budget) == 5


def test_rest_saves_no_more_than_the_burst():
    clock = Clock()
    budget = WriteBudget(50, burst=10, monotonic=clock)
    clock.now += 3600
    assert take_all(budget) == 10


def after(*outcomes: PingOutcome):
    record = NO_PINGS
    for outcome in outcomes:
        record = record.after(outcome)
    return record


OK, GARBAGE, UNREACHABLE = PingOutcome.OK, PingOutcome.GARBAGE, PingOutcome.UNREACHABLE


@pytest.mark.parametrize(
    ("outcomes", "ready", "status"),
    [
        pytest.param([], True, HealthStatus.UNKNOWN, id="not-asked-yet"),
        pytest.param([OK], True, HealthStatus.HEALTHY, id="answers"),
        pytest.param([GARBAGE] * 2, True, HealthStatus.SUSPECT, id="two-misses"),
        pytest.param([GARBAGE] * 3, True, HealthStatus.UNHEALTHY, id="three-misses"),
        pytest.param([GARBAGE, GARBAGE, OK, GARBAGE], True, HealthStatus.SUSPECT, id="a-good-one-forgets-the-misses"),
        pytest.param([UNREACHABLE] * 8, True, HealthStatus.SUSPECT, id="unreachable-but-ready-is-given-time"),
        pytest.param([UNREACHABLE] * 9, True, HealthStatus.UNHEALTHY, id="but-not-for-ever"),
        pytest.param([UNREACHABLE] * 3, False, HealthStatus.UNHEALTHY, id="unreachable-and-not-ready"),
        pytest.param([PingOutcome.UNAUTHORIZED] * 3, True, HealthStatus.UNHEALTHY, id="unauthorized-is-an-answer"),
        pytest.param([PingOutcome.WRONG_WORKER] * 3, True, HealthStatus.UNHEALTHY, id="another-worker-is-an-answer"),
    ],
)
def test_health(outcomes, ready, status):
    assert after(*outcomes).status(CHECK, pod_ready=ready) is status
