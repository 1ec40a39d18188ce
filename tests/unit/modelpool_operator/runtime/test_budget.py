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


def granted(budget: WriteBudget, names: range) -> list[int]:
    """Which of them may write now."""
    return [name for name in names if not budget.take(str(name))]


def test_a_burst_then_so_many_a_second_in_the_order_in_which_they_asked():
    clock = Clock()
    budget = WriteBudget(50, burst=10, monotonic=clock)
    assert granted(budget, range(30)) == list(range(10))
    clock.now += 0.101
    assert granted(budget, range(10, 30)) == list(range(10, 15))
    clock.now += 0.1
    assert granted(budget, range(15, 30)) == list(range(15, 20))


def test_whoever_waits_is_told_when_his_turn_is_however_often_he_asks():
    clock = Clock()
    budget = WriteBudget(50, burst=10, monotonic=clock)
    granted(budget, range(10))
    for _ in range(5):
        assert budget.take("a") == pytest.approx(0.02)
        assert budget.take("b") == pytest.approx(0.04)


def test_rest_saves_no_more_than_the_burst():
    clock = Clock()
    budget = WriteBudget(50, burst=10, monotonic=clock)
    clock.now += 3600
    assert len(granted(budget, range(100))) == 10


def test_turns_that_nobody_took_in_time_are_no_burst_later():
    clock = Clock()
    budget = WriteBudget(50, burst=10, monotonic=clock)
    granted(budget, range(100))
    clock.now += 60
    assert len(granted(budget, range(10, 100))) == 10


def test_the_turn_of_one_who_is_gone_is_forgotten():
    clock = Clock()
    budget = WriteBudget(50, burst=1, monotonic=clock)
    granted(budget, range(2))
    budget.forget("1")
    assert budget.take("1") == pytest.approx(0.04)


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
