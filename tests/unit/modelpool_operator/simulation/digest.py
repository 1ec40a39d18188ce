"""What of a world, an operator and its turns can make a difference later: two that are equal in it have one future.

Left out are texts and figures for people, which no decision reads. Versions become whether they are still current;
uids of pods and boots of processes become numbers in the order in which they are met. Of times only the ages remain,
up to ``OLD``: it holds for worlds in which every time that passes is no longer, and no other deadline is ever reached.
"""

from collections.abc import Mapping
from typing import Any, Final

from modelpool_api import Pong, WorkerState
from modelpool_api.health import NO_PINGS, PingOutcome
from modelpool_operator.domain import admission
from modelpool_operator.domain.objects import PoolView, WorkerView
from modelpool_operator.domain.plan import AskEvict, DeletePod, LiftGate
from modelpool_operator.domain.podview import PodView
from unit.modelpool_operator.simulation.operators import Operator
from unit.modelpool_operator.simulation.pool_turn import PoolTurn
from unit.modelpool_operator.simulation.process import Process
from unit.modelpool_operator.simulation.worker_turn import Reading, WorkerTurn, Write
from unit.modelpool_operator.simulation.world import World

#: Seconds; whatever is as old as this stays as it is.
OLD: Final = 2.0
#: So many missed pings are enough for everything.
MISSES: Final = 3
#: Left out of a worker's status as it stands: texts and figures for people, and what is taken in by itself below.
_APART: Final = frozenset(
    {"message", "coldStartSeconds", "lastUsedTime", "queueDepth", "pendingRequests", "memoryMiB", "device", "nodeName"}
    | {"podName", "observedGeneration", "conditions", "lastFailure"}
    | {"endpoint", "podUID", "mirrored", "transitions", "readyTime"}
)

Turns = Mapping[str, WorkerTurn | PoolTurn]


class _Names:
    """Numbers for what only has to be told apart."""

    def __init__(self) -> None:
        self._numbers: dict[str | None, int] = {None: 0, "": 0}

    def __call__(self, name: str | None) -> int:
        return self._numbers.setdefault(name, len(self._numbers))


def digest(world: World, operator: Operator, turns: Turns) -> object:
    """Return a hashable value that is equal for equal futures."""
    names = _Names()
    pods = sorted(world.pods.items())
    return (
        tuple((name, _pod(pod, names), _process(world.processes.get(pod.uid), names)) for name, pod in pods),
        tuple(_worker(world, worker, names) for _, worker in sorted(world.workers.items())),
        _pool(world.pool, names) if world.pool else None,
        tuple(sorted((worker, names(pod)) for worker, pod in world.oracle.lifted.items())),
        tuple(sorted(world.oracle.agreed.items())),
        _beliefs(world, operator, names),
        tuple((key, _turn(world, turns[key], names)) for key in sorted(turns)),
    )


def _pod(pod: PodView, names: _Names) -> object:
    seen = (pod.owner_uid, pod.phase, pod.reason, pod.gated, pod.node, pod.ready, pod.deleting, pod.disruption)
    box = pod.container
    if box is None:
        return names(pod.uid), seen
    ended = (box.last.exit_code, box.last.reason, box.last.message) if box.last else None
    return names(pod.uid), seen, box.running, box.restarts, box.waiting_reason, ended


def _process(process: Process | None, names: _Names) -> object:
    if process is None:
        return None
    machine = process.machine
    unused = min(OLD, process.idle_for()) if process.loaded and not process.open else None
    counted = (process.answers, process.open, process.served, unused)
    moves = tuple((move.from_state, move.to_state) for move in machine._moves)
    return names(machine.boot_id), machine.state, machine.seq, machine.evict_accepted, machine.pending, counted, moves


def _worker(world: World, worker: WorkerView, names: _Names) -> object:
    kept = worker.__dict__.get("_digest")  # views never change: what does not depend on numbers is made once
    if kept is None:
        status, spec = worker.status, worker.spec
        chain = status.get("transitions") or ()
        told = (chain[-1]["from"] if chain else None, any(each["to"] == "Failed" for each in chain))
        rest = tuple(sorted((key, value) for key, value in status.items() if key not in _APART))
        wishes = (worker.deleting, worker.finalizers, spec.shutdown, spec.eviction, "endpoint" in status)
        kept = worker.__dict__["_digest"] = (worker.uid, wishes, told, rest)
    shown, since = worker.mirrored, worker.since if worker.state is WorkerState.FAILED else None
    failed_for = min(OLD, (world.now - since).total_seconds()) if since else None
    return kept, failed_for, names(worker.status.get("podUID")), names(shown.boot_id), shown.seq


def _pool(pool: PoolView, names: _Names) -> object:
    ledger = tuple((uid, names(entry["podUID"])) for uid, entry in sorted((pool.status.get("ledger") or {}).items()))
    spec, repairs = (pool.spec.memory, pool.spec.stop_policy), pool.status.get("ledgerRepairs")
    return pool.uid, pool.deleting, pool.finalizers, spec, "ledger" in pool.status, ledger, repairs


def _pong(world: World, operator: Operator, pong: Pong | None, names: _Names) -> object:
    if pong is None:
        return None
    now = operator.pong_now(pong.worker_id, world.clock.seconds)
    unused = None if now is None or now.unused_for is None else min(OLD, now.unused_for)
    moves = tuple((step.seq, step.from_state, step.to_state) for step in pong.transitions)
    return names(pong.boot_id), pong.state, pong.seq, pong.pending_requests, unused, moves


def _beliefs(world: World, operator: Operator, names: _Names) -> object:
    """What it sees of the API is read anew before every step, and who answers is asked anew: the rest is memory.

    Of the pongs that a process has given before it ceases to answer, so, only one is followed further.
    """
    answering = {
        process.machine.worker_id: process.machine.boot_id
        for process in world.processes.values()
        if process.answers is PingOutcome.OK and process.machine.worker_id in operator.watched
    }
    told = []
    for uid in sorted({*operator.pongs, *operator.health}):
        pong, record = operator.pongs.get(uid), operator.health.get(uid, NO_PINGS)
        if uid in answering:
            told.append((uid, pong is not None and pong.boot_id == answering[uid]))
        else:
            told.append((uid, _pong(world, operator, pong, names), (min(MISSES, record.misses), record.last_outcome)))
    quota = tuple(sorted((uid, str(refusal[0])) for uid, refusal in operator.quota.items()))
    return (
        tuple(told),
        quota,
        tuple(sorted(operator.room_wanted)),
        operator.deaf,
        operator.service_made,
        operator.watched,
    )


def _turn(world: World, turn: WorkerTurn | PoolTurn, names: _Names) -> object:
    if isinstance(turn, Reading):
        raise TypeError("expected turns that were planned on a fresh read")
    if isinstance(turn, PoolTurn):
        change, pool = turn.change, turn.pool
        told = {**turn.decided.refusals, **turn.refused}
        return (
            _current(world.pool, pool),
            pool.finalizers,
            turn.closing,
            tuple((entry.uid, names(entry.pod_uid)) for entry in change.released),
            tuple((worker.uid, names(pod)) for worker, pod in change.reserved),
            tuple((worker.uid, names(pod.uid)) for worker, pod in change.found),
            change.lost,
            tuple(worker.uid for worker in turn.grants),
            tuple((worker.uid, str(told[worker.uid][0])) for worker in turn.waiting if worker.uid in told),
            tuple(victim.uid for victim in (*turn.decided.victims, *admission.shrink(pool, turn.holders))),
        )
    there, pod = world.workers.get(turn.worker.name), turn.seen.pod
    if not _current(there, turn.worker) and not isinstance(turn.todo[0], LiftGate | DeletePod | AskEvict):
        return "a conflict, whatever it is"
    of_pod = (names(pod.uid), _current(world.pods.get(pod.name), pod)) if pod else None
    return _current(there, turn.worker), of_pod, tuple(_request(request) for request in turn.todo)


def _current(there: Any, planned_on: Any) -> bool:
    return there is not None and there.resource_version == planned_on.resource_version


def _request(request: object) -> object:
    if isinstance(request, Write):
        to = (request.move.to, request.move.reason) if request.move else None
        return to, tuple(sorted(request.fields)), request.put_off
    return type(request).__name__, getattr(request, "force", None), getattr(request, "unused_for", None)
