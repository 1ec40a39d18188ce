"""The queue of keys: once each, one at a time, later when it fails."""

import asyncio

import pytest

from modelpool_operator.runtime.queue import KeyedQueue


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> KeyedQueue[str]:
    return KeyedQueue(clock, jitter=lambda: 0.5)


async def taken(queue: KeyedQueue[str]) -> str | None:
    """The next key, None where there is none now."""
    task = asyncio.ensure_future(queue.get())
    for _ in range(5):
        await asyncio.sleep(0)
    if task.done():
        return task.result()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return None


async def test_a_key_added_ten_times_is_served_once(queue):
    for _ in range(10):
        queue.add("a")
    assert len(queue) == 1
    assert await taken(queue) == "a"
    queue.done("a")
    assert await taken(queue) is None


async def test_keys_are_served_in_the_order_they_came(queue):
    for key in "cab":
        queue.add(key)
    assert [await taken(queue) for _ in range(3)] == ["c", "a", "b"]


async def test_a_key_added_while_it_is_worked_on_is_served_again_afterwards_and_never_twice_at_once(queue):
    queue.add("a")
    assert await taken(queue) == "a"
    queue.add("a")
    queue.add("a")
    assert await taken(queue) is None
    queue.done("a")
    assert await taken(queue) == "a"
    queue.done("a")
    assert await taken(queue) is None


async def test_a_waiting_taker_is_woken(queue):
    task = asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    assert await asyncio.wait_for(task, 5) == "a"


async def test_a_delayed_key_is_served_when_it_is_due(queue, clock):
    queue.add_after("a", 5)
    assert await taken(queue) is None
    clock.now += 5
    assert await taken(queue) == "a"


async def test_of_two_delays_the_earlier_counts(queue, clock):
    queue.add_after("a", 5)
    queue.add_after("a", 50)
    clock.now += 5
    assert await taken(queue) == "a"
    queue.done("a")
    queue.add_after("b", 50)
    queue.add_after("b", 5)
    clock.now += 5
    assert await taken(queue) == "b"
    queue.done("b")
    clock.now += 45
    assert await taken(queue) is None


async def test_a_delay_of_nothing_is_now(queue):
    queue.add_after("a", 0)
    assert await taken(queue) == "a"


def test_a_key_that_fails_comes_back_later_each_time_and_is_forgiven_by_a_success(queue):
    delays = [queue.retry("a") for _ in range(12)]
    assert delays[:4] == [0.25, 0.5, 1.0, 2.0]
    assert delays[-1] == 60.0
    assert queue.retry("b") == 0.25
    queue.succeeded("a")
    assert queue.retry("a") == 0.25


@pytest.mark.parametrize(("jitter", "delay"), [(0.0, 0.1875), (1.0, 0.3125)])
def test_delays_are_spread(clock, jitter, delay):
    assert KeyedQueue(clock, jitter=lambda: jitter).retry("a") == delay


def test_who_was_told_when_to_come_back_comes_no_sooner(queue):
    assert queue.retry("a", at_least=7.0) == 7.0
    assert [queue.retry("a", at_least=1.0) for _ in range(2)] == [1.0, 1.0]
    assert queue.retry("a", at_least=1.0) == 2.0


async def test_stalled_only_while_something_waits_or_is_worked_on(queue, clock):
    clock.now += 1000
    assert queue.stalled_for() == 0.0
    queue.add("a")
    assert await taken(queue) == "a"
    clock.now += 10
    assert queue.stalled_for() > 0
    queue.done("a")
    assert queue.stalled_for() == 0.0


async def test_work_that_comes_after_a_long_rest_is_not_called_stalled(queue, clock):
    """The rest is not counted: the liveness probe may not end an operator that had nothing to do."""
    clock.now += 1000
    queue.add("a")
    assert queue.stalled_for() < 10
    clock.now += 10
    assert queue.stalled_for() == 10


def test_deadlines_that_sooner_ones_replace_are_not_kept():
    """A busy worker asks for a later look at itself all day long, and each is replaced by a sooner one."""
    clock = [0.0]
    queue = KeyedQueue(monotonic=lambda: clock[0])

    for _ in range(5000):
        queue.add_after("w", 86_400.0)
        queue.add_after("w", 0.25)
        clock[0] += 0.3
        queue._promote()
        queue._ordinary.clear()

    assert len(queue._later) < 200


@pytest.fixture
def lanes(clock: Clock) -> KeyedQueue[str]:
    """Keys that begin with u are urgent."""
    return KeyedQueue(clock, jitter=lambda: 0.5, urgent=lambda key: key.startswith("u"))


async def served(queue: KeyedQueue[str], count: int) -> str:
    """The lanes of so many keys, in the order in which they are served."""
    return "".join([(await queue.get())[0] for _ in range(count)])


async def test_urgent_keys_go_first_and_the_others_have_every_sixteenth_turn(lanes):
    for number in range(40):
        lanes.add(f"o{number}")
        lanes.add(f"u{number}")
    assert await served(lanes, 48) == ("u" * 15 + "o") * 2 + "u" * 10 + "o" * 6


async def test_a_flood_of_urgent_keys_takes_half_of_the_turns_from_those_who_have_waited_long(lanes, clock):
    """Nobody can keep the others' work off by making workers for ever."""
    for number in range(40):
        lanes.add(f"o{number}")
        lanes.add(f"u{number}")
    clock.now += 10.1
    assert await served(lanes, 8) == "uo" * 4


async def test_a_key_waits_in_one_lane_only():
    urgent = {"a"}
    queue = KeyedQueue(urgent=lambda key: key in urgent)
    queue.add("a")
    urgent.clear()
    queue.add("a")
    assert len(queue) == 1
