"""Every history of two workers and one pool, explored to its closure: a few of the things that may go wrong at a time.

A broken promise is told with the shortest way that leads to it. Times are few (unused for 1 s: Idle, for 2 s: asked to
go; Failed for 1 s), and no other deadline is reached. ``SIMULATION_DEEP=1`` adds what takes a minute and more.
"""

import os
from typing import Any, Final

import pytest

from modelpool_api import WorkerState
from modelpool_api.health import PingOutcome
from unit.modelpool_operator.simulation import settling
from unit.modelpool_operator.simulation.exploration import Scenario, State, explore
from unit.modelpool_operator.simulation.operators import Operator
from unit.modelpool_operator.simulation.oracle import Violation
from unit.modelpool_operator.simulation.world import World

LATE: Final = 1_000_000
RULES: Final = {
    "idleTimeoutSeconds": 1,
    "evictAfterSeconds": 2,
    "minResidencySeconds": 0,
    "loadDeadlineSeconds": LATE,
    "scheduleDeadlineSeconds": LATE,
    "restartLimit": 1,
    "restartWindowSeconds": LATE,
    "failedRetentionSeconds": 1,
    "healthCheck": {"periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 1},
}
STRANGERS: Final = frozenset({"delete", "smuggle"})
PROCESSES: Final = frozenset({"crash", "never loads", "quit", "hang"})
LOST: Final = frozenset({"delete"})
NODES: Final = frozenset({"reject", "delete", "lose node", "sigterm"})
USERS: Final = frozenset({"deleted", "shutdown"})
POOL: Final = frozenset({"dissolved", "512Mi", "2Gi", "HoldAndDrain"})


def new(*names: str) -> State:
    """Workers that nobody has seen yet, and room for one."""
    world = World()
    world.make_pool("1Gi", **RULES)
    for name in names:
        world.make_worker(name)
    return State(world, Operator(tells=False))


def two_new() -> State:
    """Two workers that nobody has seen yet."""
    return new("a", "b")


def one_new() -> State:
    """One worker that nobody has seen yet."""
    return new("a")


def one_serves() -> State:
    """Worker a serves, b waits for its room."""
    state = new("a", "b")
    settling.run(state.world, state.operator)
    return state


def case(name: str, least: int, begin: Any, *, deep: bool = False, **limits: Any) -> Any:
    """One scenario; fewer states than ``least`` are not all."""
    wanted = not deep or os.environ.get("SIMULATION_DEEP") == "1"
    marks = () if wanted else pytest.mark.skip(reason="takes a minute and more; SIMULATION_DEEP=1 runs it")
    return pytest.param(Scenario(begin, **limits), least, id=name, marks=marks)


CASES: Final = [
    case("two-new-and-a-frozen-leader", 2000, two_new, frozen=1, scheduled=""),
    case("two-new-and-strangers", 1500, two_new, kinds=STRANGERS, troubles=1, scheduled=""),
    case("two-new-and-users", 2500, two_new, kinds=USERS, troubles=1, scheduled=""),
    case("two-new-and-their-pool", 4000, two_new, kinds=POOL, troubles=1, scheduled=""),
    case("one-new-lost-and-a-frozen-leader", 1000, one_new, kinds=LOST, troubles=1, frozen=1, scheduled=""),
    case("one-serves-requests", 24000, one_serves, requests=1, frozen=1, frozen_anywhere=False),
    case("one-serves-and-a-frozen-leader", 10000, one_serves, frozen=1),
    case("one-serves-and-its-process", 5500, one_serves, kinds=PROCESSES, troubles=1),
    case("one-serves-and-its-node", 7000, one_serves, kinds=NODES, troubles=1),
    case("one-serves-in-a-pool-that-shrinks", 3000, one_serves, kinds=frozenset({"512Mi"}), troubles=1),
    case("deep-in-a-pool-that-drains", 15000, one_serves, deep=True, kinds=frozenset({"HoldAndDrain"}), troubles=1),
    case("deep-one-new-lost", 20000, one_new, deep=True, kinds=LOST, troubles=1, frozen=1),
    case("deep-one-serves-and-users", 80000, one_serves, deep=True, kinds=USERS, troubles=1, requests=1),
    case("deep-one-serves-requests-frozen", 40000, one_serves, deep=True, requests=1, frozen=1),
    case("deep-two-new-two-troubles", 32000, two_new, deep=True, kinds=STRANGERS | USERS, troubles=2, scheduled=""),
]


@pytest.mark.slow
@pytest.mark.parametrize(("scenario", "least"), CASES)
def test_no_history_breaks_a_promise_and_none_ends_before_it_has_come_to_rest(scenario, least):
    found = explore(scenario, judge_quiet)
    assert len(found.came) >= least
    assert found.dead_end() is None


def judge_quiet(world: World) -> None:
    """Judge a state in which nothing happens any more by itself: what is told is true, who waits has no room."""
    ledger = world.pool.ledger if world.pool else {}
    pods = {pod.owner_uid: pod for pod in world.pods.values()}
    for worker in world.workers.values():
        state, pod = worker.state, pods.get(worker.uid)
        process = world.processes.get(pod.uid) if pod else None
        if state in (WorkerState.FAILED, WorkerState.DEAD):
            hold(pod is None and worker.uid not in ledger, f"{worker.name} is {state} and still holds something")
        elif state is WorkerState.SPAWNING and process is None:
            unplaced = pod is not None and not pod.gated and worker.uid in ledger
            hold(unplaced or not settling.could_run(world, worker), f"{worker.name} waits and could run")
        else:
            said = process is not None and (process.state is state or process.answers is not PingOutcome.OK)
            hold(said and worker.uid in ledger, f"{worker.name} is said to be {state}")
        hold(not worker.deleting, f"{worker.name} is deleted and stays {state}")
    hold(ledger.keys() <= pods.keys(), f"the ledger holds {sorted(ledger)}, pods have {sorted(pods)}")
    hold(world.pool is None or not world.pool.deleting, "the pool is deleted and stays")


def hold(truth: bool, otherwise: str) -> None:
    """Raise ``Violation`` unless it is so."""
    if not truth:
        raise Violation(otherwise)
