"""The circuit breaker of one worker."""

import pytest

from modelpool_gateway.breaker import THRESHOLD, Breaker, BreakerState


def broken(now: float = 100.0) -> Breaker:
    breaker = Breaker()
    for _ in range(THRESHOLD):
        breaker.began()
        breaker.failed(now)
    return breaker


def test_failures_in_a_row_open_it_and_a_success_between_them_does_not_let_it_come_to_that():
    breaker = Breaker()
    for _ in range(5):
        for _ in range(THRESHOLD - 1):
            breaker.failed(1.0)
        assert breaker.allows(1.0)
        breaker.succeeded()
    assert broken().state(100.0) is BreakerState.OPEN
    assert not broken().allows(100.9)


def test_after_its_pause_one_request_is_on_trial_and_no_other_goes_along():
    breaker = broken()
    assert breaker.allows(101.0)
    breaker.began()
    assert breaker.state(101.0) is BreakerState.HALF_OPEN
    assert not breaker.allows(101.0)


def test_a_trial_that_succeeds_closes_it():
    breaker = broken()
    breaker.began()
    breaker.succeeded()
    assert breaker.state(101.0) is BreakerState.CLOSED
    assert breaker.allows(101.0)


@pytest.mark.parametrize(("trials", "pause"), [(1, 2.0), (2, 4.0), (4, 16.0), (5, 30.0), (40, 30.0)])
def test_each_trial_that_fails_doubles_the_pause_up_to_a_limit(trials, pause):
    breaker = broken()
    for _ in range(trials):
        breaker.began()
        breaker.failed(200.0)
    assert not breaker.allows(200.0 + pause - 0.01)
    assert breaker.allows(200.0 + pause)


def test_a_trial_whose_client_leaves_lets_the_next_one_try():
    breaker = broken()
    breaker.began()
    breaker.abandoned()
    assert breaker.allows(101.0)
    assert breaker.state(101.0) is BreakerState.HALF_OPEN
