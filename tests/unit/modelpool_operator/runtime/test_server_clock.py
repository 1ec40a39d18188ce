"""The API server's clock, from its Date headers and our monotonic one."""

from datetime import UTC, datetime, timedelta

import pytest

from modelpool_operator.kube.client import ServerClock

NOON = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)


class Monotonic:
    def __init__(self) -> None:
        self.now = 7.0

    def __call__(self) -> float:
        return self.now


def header(seconds: float) -> str:
    return (NOON + timedelta(seconds=seconds)).strftime("%a, %d %b %Y %H:%M:%S GMT")


@pytest.fixture
def monotonic() -> Monotonic:
    return Monotonic()


@pytest.fixture
def clock(monotonic: Monotonic) -> ServerClock:
    clock = ServerClock(monotonic)
    clock.observe(header(0))
    return clock


def test_between_answers_it_runs_on(clock, monotonic):
    monotonic.now += 2.5
    assert clock.now() == NOON + timedelta(seconds=2.5)


@pytest.mark.parametrize(
    ("after", "date", "now"),
    [
        pytest.param(1.5, 2, 2.0, id="ahead-of-our-reckoning-is-better"),
        pytest.param(5.0, 3, 5.0, id="a-late-answer-does-not-set-it-back"),
        pytest.param(5.0, -100, -100.0, id="a-server-clock-set-back-is-followed"),
    ],
)
def test_the_best_reading_counts(clock, monotonic, after, date, now):
    monotonic.now += after
    clock.observe(header(date))
    assert clock.now() == NOON + timedelta(seconds=now)


@pytest.mark.parametrize("header", [None, "", "yesterday"])
def test_no_header_or_nonsense_changes_nothing(clock, header):
    clock.observe(header)
    assert clock.now() == NOON
