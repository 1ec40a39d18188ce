"""The circuit breaker of one worker."""

import pytest

from modelpool_gateway.breaker import THRESHOLD, Breaker, BreakerState


def fail(breaker: Breaker, now: float, times: int = 1) -> None:
    """Requests fail one after another."""
    for _ in range(times):
        breaker.failed(breaker.began(), now)


def broken(now: float = 100.0) -> Breaker:
    breaker = Breaker()
    fail(breaker, now, THRESHOLD)
    return breaker


def test_failures_in_a_row_open_it_and_a_success_between_them_does_not_let_it_come_to_that():
    breaker = Breaker()
    for _ in range(5):
        fail(breaker, 1.0, THRESHOLD - 1)
        assert breaker.allows(1.0)
        assert not breaker.succeeded()
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
    assert breaker.succeeded(), "whoever waits is to be told"
    assert breaker.state(101.0) is BreakerState.CLOSED
    assert breaker.allows(101.0)


@pytest.mark.parametrize(("trials", "pause"), [(1, 2.0), (2, 4.0), (4, 16.0), (5, 30.0), (40, 30.0)])
def test_each_trial_that_fails_doubles_the_pause_up_to_a_limit(trials, pause):
    breaker = broken()
    fail(breaker, 200.0, trials)
    assert not breaker.allows(200.0 + pause - 0.01)
    assert breaker.allows(200.0 + pause)


def test_all_that_a_worker_had_when_it_died_is_one_event_and_opens_it_for_the_first_pause():
    breaker = Breaker()
    tokens = [breaker.began() for _ in range(128)]
    for token in tokens:
        breaker.failed(token, 100.0)
    assert breaker.opens_in(100.0) == 1.0


def test_who_was_sent_before_it_opened_does_not_end_the_trial_nor_lengthen_the_pause():
    breaker = Breaker()
    early = breaker.began()
    fail(breaker, 100.0, THRESHOLD)
    trial = breaker.began()
    breaker.abandoned(early)
    breaker.failed(early, 101.0)
    breaker.busy(early, 101.0)
    assert not breaker.allows(101.0), "one is on trial"
    breaker.failed(trial, 101.0)
    assert breaker.opens_in(101.0) == 2.0
    breaker.abandoned(trial)
    assert breaker.opens_in(101.0) == 2.0


def test_a_trial_whose_client_leaves_lets_the_next_one_try():
    breaker = broken()
    breaker.abandoned(breaker.began())
    assert breaker.allows(101.0)
    assert breaker.state(101.0) is BreakerState.HALF_OPEN


def test_an_answer_that_breaks_off_after_it_has_closed_the_breaker_counts():
    breaker = broken()
    trial = breaker.began()
    breaker.succeeded()
    breaker.failed(trial, 101.0)
    assert breaker.failures == 1


def test_one_that_is_not_ready_yet_is_asked_by_one_request_after_the_same_short_pause_each_time():
    breaker, now = Breaker(), 100.0
    for token in [breaker.began() for _ in range(8)]:
        breaker.busy(token, now)
    for _ in range(8):
        assert breaker.opens_in(now) == 1.0
        now += 1.0
        assert breaker.allows(now)
        breaker.busy(breaker.began(), now)
    assert breaker.succeeded()
    assert breaker.allows(now)


def test_another_process_is_asked_at_once_and_has_nothing_to_do_with_what_the_one_before_had():
    breaker = broken()
    trial = breaker.began()
    breaker.reset()
    assert breaker.allows(100.0)
    for _ in range(THRESHOLD):
        breaker.failed(trial, 100.0)
    assert breaker.state(100.0) is BreakerState.CLOSED
