"""The worker's state machine, on a clock that only the test moves."""

import asyncio

import pytest

from modelpool_api import EvictRequest, IllegalTransitionError, WorkerEvent, WorkerState
from modelpool_worker.errors import NotServingError
from modelpool_worker.machine import Gauges, Machine

S = WorkerState


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def machine(clock):
    return Machine(worker_id="uid", boot_id="boot", idle_timeout=30, clock=clock)


def ready(machine):
    machine.fire(WorkerEvent.LOADED, "ModelLoaded")


def ask(**fields):
    return EvictRequest(**({"worker_id": "uid", "boot_id": "boot", "reason": "IdleEviction"} | fields))


def test_a_life_tells_its_moves_in_order(machine, clock):
    ready(machine)
    machine.admit()
    machine.done()
    clock.now += 30
    machine.tick()
    assert machine.evict(ask(unused_for=30))
    pong = machine.pong(Gauges(), 0)
    assert [(move.seq, str(move.to_state)) for move in pong.transitions] == [
        (1, "Ready"),
        (2, "Processing"),
        (3, "Ready"),
        (4, "Idle"),
        (5, "Evicting"),
    ]
    assert pong.transitions[2].age == 30
    assert pong.seq == 5


def test_a_move_that_is_not_in_the_table_changes_nothing(machine):
    with pytest.raises(IllegalTransitionError):
        machine.fire(WorkerEvent.REQUESTS_DONE, "RequestsDone")
    assert (machine.state, machine.seq) == (S.LOADING, 0)


def test_a_pong_lists_the_last_twenty_moves_only(machine):
    ready(machine)
    for _ in range(30):
        machine.admit()
        machine.done()
    assert [move.seq for move in machine.pong(Gauges(), 0).transitions] == list(range(42, 62))


def test_requests_overlap_in_one_processing(machine):
    ready(machine)
    machine.admit()
    machine.admit()
    machine.done()
    assert (machine.state, machine.pending, machine.seq) == (S.PROCESSING, 1, 2)
    machine.done()
    assert (machine.state, machine.pending, machine.seq) == (S.READY, 0, 3)


def test_done_without_admit_is_an_error(machine):
    with pytest.raises(RuntimeError):
        machine.done()


@pytest.mark.parametrize(("state", "retry_after"), [(S.LOADING, "5"), (S.EVICTING, "1")], ids=str)
def test_nothing_is_admitted_while_it_does_not_serve(machine, state, retry_after):
    if state is S.EVICTING:
        machine.terminate()
    with pytest.raises(NotServingError) as refused:
        machine.admit()
    assert refused.value.headers == {"Retry-After": retry_after, "X-Modelpool-State": str(state)}
    assert machine.pending == 0


def test_idle_counts_from_the_end_of_the_last_request(machine, clock):
    ready(machine)
    clock.now += 29
    machine.admit()
    clock.now += 100
    machine.tick()
    assert (machine.state, machine.unused_for()) == (S.PROCESSING, 0.0)
    machine.done()
    assert machine.idle_due() == 30
    clock.now += 29.9
    machine.tick()
    assert machine.state is S.READY
    clock.now += 0.1
    machine.tick()
    assert machine.state is S.IDLE


def test_a_shorter_idle_timeout_counts_at_once(machine, clock):
    ready(machine)
    clock.now += 10
    machine.set_idle_timeout(5)
    assert machine.idle_due() == 0
    machine.tick()
    assert machine.state is S.IDLE


def test_idle_serves_again(machine, clock):
    ready(machine)
    clock.now += 30
    machine.tick()
    machine.admit()
    assert machine.state is S.PROCESSING


def in_state(machine, clock, state):
    if state is not S.LOADING:
        ready(machine)
    if state is S.PROCESSING:
        machine.admit()
    if state is S.IDLE:
        clock.now += 30
        machine.tick()
    assert machine.state is state


@pytest.mark.parametrize(
    ("state", "waited", "request_", "agreed"),
    [
        pytest.param(S.READY, 10, {"unused_for": 10}, True, id="ready and unused for exactly that long"),
        pytest.param(S.READY, 9.9, {"unused_for": 10}, False, id="ready and used too lately"),
        pytest.param(S.IDLE, 0, {"unused_for": 30}, True, id="idle"),
        pytest.param(S.PROCESSING, 99, {"unused_for": 0}, False, id="processing never"),
        pytest.param(S.LOADING, 99, {"unused_for": 0}, False, id="loading never"),
        pytest.param(S.LOADING, 0, {"force": True}, True, id="loading by force"),
        pytest.param(S.PROCESSING, 0, {"force": True}, True, id="processing by force"),
        pytest.param(S.IDLE, 0, {"worker_id": "other", "force": True}, False, id="meant for another worker"),
        pytest.param(S.IDLE, 0, {"boot_id": "other", "force": True}, False, id="meant for the process before"),
    ],
)
def test_eviction_is_decided_by_the_worker(machine, clock, state, waited, request_, agreed):
    in_state(machine, clock, state)
    clock.now += waited
    before = (machine.state, machine.seq, machine.pending)
    assert machine.evict(ask(**request_)) is agreed
    assert machine.evict_accepted is agreed
    if agreed:
        assert machine.state is S.EVICTING
        assert machine.pong(Gauges(), 0).transitions[-1].reason == "IdleEviction"
    else:
        assert (machine.state, machine.seq, machine.pending) == before


def test_an_agreed_eviction_is_agreed_again_when_its_answer_was_lost(machine):
    ready(machine)
    assert machine.evict(ask())
    assert machine.evict(ask(unused_for=9999))
    assert machine.seq == 2


def test_an_evicting_worker_finishes_what_it_has(machine):
    ready(machine)
    machine.admit()
    machine.evict(ask(force=True))
    assert machine.pending == 1
    machine.done()
    assert (machine.state, machine.pending) == (S.EVICTING, 0)


def test_sigterm_twice_is_sigterm_once(machine):
    ready(machine)
    machine.terminate()
    machine.terminate()
    assert (machine.state, machine.seq, machine.evict_accepted) == (S.EVICTING, 2, False)


@pytest.mark.parametrize(("force", "agreed"), [(True, True), (False, False)])
def test_after_sigterm_only_a_forced_evict_is_agreed_to(machine, force, agreed):
    ready(machine)
    machine.terminate()
    assert machine.evict(ask(force=force)) is agreed


async def settle():
    """Let every task run until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize(("boot", "seq"), [("other", 0), ("boot", 7)], ids=["another boot", "another move"])
async def test_a_long_poll_that_knows_less_returns_at_once(machine, boot, seq):
    await asyncio.wait_for(machine.moved_on(boot, seq, 60), 1)


async def test_a_long_poll_returns_at_the_next_move(machine):
    poll = asyncio.create_task(machine.moved_on("boot", 0, 60))
    await settle()
    machine.set_idle_timeout(77)  # wakes the timer, but is no move
    await settle()
    assert not poll.done()
    ready(machine)
    await asyncio.wait_for(poll, 1)


async def test_a_long_poll_returns_when_the_process_closes(machine):
    poll = asyncio.create_task(machine.moved_on("boot", 0, 60))
    await settle()
    machine.close()
    await asyncio.wait_for(poll, 1)
