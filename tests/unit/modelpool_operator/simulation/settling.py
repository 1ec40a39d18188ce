"""Once faults stop: one operator, fair nodes, time that goes on; to where nothing changes any more."""

from typing import Final

from modelpool_api import FLIP_STATES, WorkerState
from modelpool_operator.api import names
from modelpool_operator.domain.objects import WorkerView
from unit.modelpool_operator.simulation import nodes, pool_turn, worker_turn
from unit.modelpool_operator.simulation.operators import Operator
from unit.modelpool_operator.simulation.oracle import Violation
from unit.modelpool_operator.simulation.world import World

#: What fair nodes and processes do by themselves, as soon as they can.
FAIR: Final = frozenset({"collect", "schedule", "start", "restart", "load", "probe", "done", "idle", "leave", "gone"})
#: So many pauses without a change are longer than any deadline of the worlds that are settled.
_QUIET: Final = 30
#: Seconds; without a pool the defaults hold, which are long.
_PAUSE: Final = 4.0
_PAUSE_WITHOUT_POOL: Final = 100.0
_ROUNDS: Final = 300
#: Requests of one reconcile, and rounds without time: far more than any life has moves.
_REQUESTS: Final = 60
_BUSY: Final = 60


def settle(world: World, operator: Operator | None = None) -> Operator:
    """Run to the fixpoint and judge it; raise ``Violation`` where there is none."""
    operator, quiet = operator or Operator(), 0
    for _ in range(_ROUNDS):
        run(world, operator)
        before = world.counter
        world.clock.seconds += _PAUSE if world.pool else _PAUSE_WITHOUT_POOL
        run(world, operator)
        quiet = quiet + 1 if world.counter == before else 0
        if quiet >= _QUIET:
            settled(world)
            return operator
    raise Violation(f"no fixpoint after {_ROUNDS} rounds: {_told(world)}")


def run(world: World, operator: Operator) -> None:
    """Let everybody do all that can be done without time."""
    for _ in range(_BUSY):
        before = world.counter, dict(operator.room_wanted)
        look_around(world, operator)
        for step in nodes.steps(world):
            if step.kind in FAIR and step.pod in world.pods:
                again = [each for each in nodes.steps(world) if each[:2] == step[:2]]
                for each in again:
                    each.happen(world)
        world.check()
        if (world.counter, operator.room_wanted) == before:
            return
    raise Violation(f"still busy after {_BUSY} rounds without time: {_told(world)}")


def look_around(world: World, operator: Operator) -> None:
    """A sweep: every worker pinged and reconciled, the pool too, each as far as it goes."""
    operator.look_at_all(world)
    for name in list(operator.workers):
        worker = operator.workers[name]
        operator.watch_process(worker)
        if worker.uid in operator.watched:
            operator.ping(world, worker)
        for _ in range(_REQUESTS):
            before = world.counter
            finish_worker(world, operator, name)
            if world.counter == before:
                break
        else:
            raise Violation(f"the reconcile of {name} finds no end: {_told(world)}")
    finish_pool(world, operator)


def finish_worker(world: World, operator: Operator, name: str) -> None:
    """Reconcile one worker once, without anybody in between."""
    turn = worker_turn.begin(world, operator, name)
    while turn is not None:
        turn = worker_turn.advance(world, operator, turn)
        world.check()


def finish_pool(world: World, operator: Operator) -> None:
    """Reconcile the pool once, without anybody in between."""
    turn = pool_turn.begin(world, operator)
    while turn is not None:
        turn = pool_turn.advance(world, operator, turn)
        world.check()


def settled(world: World) -> None:
    """Judge a state in which nothing will change: everybody has ended, serves unused, or truly does not fit."""
    ledger = world.pool.ledger if world.pool else {}
    holding = {worker.uid for worker in world.workers.values() if worker.state in FLIP_STATES}
    _hold(world, ledger.keys() == holding, f"the ledger holds {sorted(ledger)}, those that serve are {sorted(holding)}")
    charged = {entry.pod_uid for entry in ledger.values()}
    _hold(world, {pod.uid for pod in world.pods.values()} >= charged, "a reservation without its pod")
    running = {pod.uid for pod in world.pods.values() if not pod.gated}
    _hold(world, running == charged, f"{sorted(running)} run, {sorted(charged)} are charged")
    for worker in world.workers.values():
        state = worker.state
        if state is WorkerState.SPAWNING:
            _hold(world, not could_run(world, worker), f"{worker.name} waits and could run")
        else:
            resting = state is WorkerState.IDLE and worker.spec.eviction == "Never"
            _hold(world, state is WorkerState.DEAD or resting, f"{worker.name} is {state} for ever")
        _hold(world, not worker.deleting, f"{worker.name} is deleted and stays")
    if world.pool is not None:
        _hold(world, not world.pool.deleting, "the pool is deleted and stays")
        over = world.pool.reserved.beyond(world.pool.budget)
        pinned = sum(worker.spec.eviction == "Never" for worker in world.workers.values() if worker.uid in ledger)
        _hold(world, not any((over.memory_mib, over.gpus)) or pinned > 0, "the pool stays over its budget")
    for pod_uid in world.oracle.charged:
        _hold(world, pod_uid in charged or pod_uid in world.oracle.released, f"{pod_uid} was never released")


def could_run(world: World, worker: WorkerView) -> bool:
    """Whether there is room for a worker, by the plainest count."""
    pool = world.pool
    if pool is None or not pool.admits or worker.name in world.unwelcome:
        return False
    free = pool.budget - pool.reserved
    return worker.spec.memory_mib <= free.memory_mib and worker.spec.gpus <= free.gpus


def _hold(world: World, truth: bool, otherwise: str) -> None:
    if not truth:
        raise Violation(f"{otherwise}: {_told(world)}")


def _told(world: World) -> str:
    workers = ", ".join(f"{each.name} {each.status.get('state')}" for each in world.workers.values())
    pods = ", ".join(f"{each.name}{' gated' if each.gated else ''}" for each in world.pods.values())
    held = sorted(entry.name for entry in world.pool.ledger.values()) if world.pool else None
    finalizer = names.POOL_FINALIZER in world.pool.finalizers if world.pool else None
    return f"workers [{workers}], pods [{pods}], ledger {held}, pool's finalizer {finalizer}"
