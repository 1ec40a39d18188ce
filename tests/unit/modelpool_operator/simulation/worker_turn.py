"""The reconcile of a worker as ``runtime/workers.py`` does it, cut into single requests.

A turn is data: it may be put aside, copied into another world, or dropped in a crash.
"""

from dataclasses import dataclass, replace
from typing import Final

from modelpool_api import FLIP_STATES, WorkerState
from modelpool_operator.api import names
from modelpool_operator.domain import plan as plans
from modelpool_operator.domain.errors import ConflictError, NotFoundError
from modelpool_operator.domain.objects import WorkerView
from modelpool_operator.domain.plan import Plan
from modelpool_operator.domain.seen import Seen
from modelpool_operator.domain.transitions import Move, appended, is_flip
from modelpool_operator.domain.worker_plan import plan_worker
from unit.modelpool_operator.simulation.operators import Operator
from unit.modelpool_operator.simulation.world import Json, World

_LASTING: Final = frozenset({"readyTime", "coldStartSeconds", "mirrored", "restarts", "lastFailure"})
#: Fields of a worker's status that decisions read; all others are for people.
_READ: Final = _LASTING | {"podUID", "restartsForgiven"}


@dataclass(frozen=True)
class Write:
    """One write of the status: a move with its fields, or fields alone."""

    fields: Json
    move: Move | None = None
    put_off: bool = False  # a flip of load, which waits for the budget


Request = Write | plans.Action


@dataclass(frozen=True)
class Reading:
    """A destructive plan is made again on a fresh read: of the worker, then its pod, then the pool."""

    name: str
    worker: WorkerView | None = None
    pod_read: bool = False


@dataclass(frozen=True)
class Carrying:
    """A plan on its way: what is still to be requested, and the worker as the last reply showed it."""

    worker: WorkerView
    seen: Seen
    todo: tuple[Request, ...]


WorkerTurn = Reading | Carrying


def begin(world: World, operator: Operator, name: str) -> WorkerTurn | None:
    """Plan on what is believed; None where there is nothing to request."""
    worker = operator.workers.get(name)
    if worker is None:
        return None
    seen = operator.see(worker, world)
    plan = plan_worker(seen, world.now)
    return Reading(name) if plan.destructive else _carry(operator, seen, plan)


def begin_fresh(world: World, operator: Operator, name: str) -> WorkerTurn | None:
    """Plan on the truth of this instant."""
    operator.look_at(world, name)
    worker = operator.workers.get(name)
    if worker is None:
        return None
    seen = operator.see(worker, world)
    return _carry(operator, seen, plan_worker(seen, world.now))


def advance(world: World, operator: Operator, turn: WorkerTurn, *, lost: bool = False) -> WorkerTurn | None:
    """Make the next request; ``lost``: a worker's answer does not come back."""
    if isinstance(turn, Reading):
        return _read(world, operator, turn)
    try:
        return _request(world, operator, turn, lost=lost)
    except (ConflictError, NotFoundError):
        operator.look_at(world, turn.worker.name)  # somebody else wrote first, or it is gone: look again
        return None


def _read(world: World, operator: Operator, turn: Reading) -> WorkerTurn | None:
    if turn.worker is None:
        operator.read_worker(world, turn.name)
        worker = operator.workers.get(turn.name)
        return None if worker is None else replace(turn, worker=worker)
    if not turn.pod_read:
        operator.read_pod(world, turn.worker.pod_name)
        return replace(turn, pod_read=True)
    operator.pool = world.pool
    seen = operator.see(turn.worker, world)
    return _carry(operator, seen, plan_worker(seen, world.now))


def _carry(operator: Operator, seen: Seen, plan: Plan) -> WorkerTurn | None:
    """Turn a plan into its requests, in the order in which they are made."""
    worker, known = seen.worker, plan.fields
    if not operator.tells:
        known, plan = {name: value for name, value in known.items() if name in _READ}, replace(plan, gauges={})
    first = [action for action in plan.actions if isinstance(action, plans.AddFinalizer)]
    rest = [action for action in plan.actions if not isinstance(action, plans.AddFinalizer | plans.AskPool)]
    writes: list[Write] = []
    if plan.accept:
        accepted = {"state": "Spawning", "reason": "Accepted", "message": "", "observedGeneration": worker.generation}
        writes.append(Write(accepted))
    load_only = worker.state in FLIP_STATES and all(move.to in FLIP_STATES for move in plan.moves)
    lasting = {name: value for name, value in known.items() if name in _LASTING}
    start = worker.state
    for move in plan.moves:
        flip = start is not None and is_flip(start, move.to)
        fields = {**known, **plan.gauges} if move is plan.moves[-1] else {} if flip else lasting
        writes.append(Write(fields, move, put_off=load_only))
        start = move.to
    if known and not plan.moves:
        writes.append(Write({**known, **plan.gauges}))
    todo = (*first, *writes, *rest)
    if not todo:
        operator.watch_process(worker)
        return None
    return Carrying(worker, seen, todo)


def _request(world: World, operator: Operator, turn: Carrying, *, lost: bool) -> WorkerTurn | None:
    request, worker = turn.todo[0], turn.worker
    if isinstance(request, Write) and request.put_off and not operator.may_flip:
        operator.watch_process(worker)
        return None  # what the budget puts off: the actions wait as well
    worker = _do(world, operator, turn, request, lost=lost)
    if worker.uid != turn.worker.uid or worker.name not in operator.workers:
        return None
    left = turn.todo[1:]
    if left:
        return replace(turn, worker=worker, todo=left)
    operator.watch_process(worker)
    return None


def _do(world: World, operator: Operator, turn: Carrying, request: Request, *, lost: bool) -> WorkerView:
    worker, pod = turn.worker, turn.seen.pod
    match request:
        case Write(move=None):
            return _told(operator, world.patch_worker(worker, status=request.fields))
        case Write():
            return _move(world, operator, worker, request)
        case plans.AddFinalizer():
            kept = (*worker.finalizers, names.WORKER_FINALIZER)
            return _told(operator, world.patch_worker(worker, finalizers=kept))
        case plans.RemoveFinalizer():
            kept = tuple(name for name in worker.finalizers if name != names.WORKER_FINALIZER)
            return _told(operator, world.patch_worker(worker, finalizers=kept))
        case plans.EnsureService():
            operator.service_made |= {worker.uid}
        case plans.LiftGate():
            if pod is not None:
                try:
                    operator.pods[pod.name] = world.lift_gate(pod)
                except (ConflictError, NotFoundError):
                    operator.read_pod(world, pod.name)
        case plans.DeletePod():
            if pod is not None:
                world.delete_pod(pod)
            operator.read_pod(world, worker.pod_name)
        case plans.AskEvict():
            agreed = operator.ask_to_go(world, worker, request, lost=lost)
            operator.room_wanted.pop(worker.uid, None)
            if request.force and not agreed:
                operator.deaf |= {worker.uid}
    return worker


def _move(world: World, operator: Operator, worker: WorkerView, write: Write) -> WorkerView:
    move, start = write.move, worker.state or WorkerState.SPAWNING
    assert move is not None
    status = {
        **write.fields,
        "state": str(move.to),
        "reason": move.reason,
        "message": move.message,
        "transitions": appended(worker.status.get("transitions") or (), start, move),
    }
    after = world.patch_worker(worker, status=status)
    pong = operator.pongs.get(worker.uid)
    restarted = start in FLIP_STATES and move.to is WorkerState.LOADING
    if restarted and pong is not None and pong.boot_id == after.mirrored.boot_id:
        operator.pongs.pop(worker.uid)  # the last word of a process that is no more
    return _told(operator, after)


def _told(operator: Operator, worker: WorkerView) -> WorkerView:
    """Remember a reply, unless something younger was seen already."""
    known = operator.workers.get(worker.name)
    if known is None or known.uid != worker.uid or int(worker.resource_version) > int(known.resource_version):
        operator.workers[worker.name] = worker
    return worker
