"""The reconcile of a pool as ``runtime/pools.py`` does it, cut into single requests.

A turn is data: it may be put aside, copied into another world, or dropped in a crash.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

from modelpool_api import WorkerState
from modelpool_operator.api import names
from modelpool_operator.api.names import Reason
from modelpool_operator.domain import admission
from modelpool_operator.domain.errors import ConflictError, InvalidError, NotFoundError
from modelpool_operator.domain.ledger import LedgerChange, status_patch
from modelpool_operator.domain.objects import Entry, PoolView, WorkerView
from modelpool_operator.domain.podview import PodView
from modelpool_operator.domain.room import Candidate
from modelpool_operator.domain.rules import rules_for
from unit.modelpool_operator.simulation.operators import Operator
from unit.modelpool_operator.simulation.world import World


@dataclass(frozen=True)
class PoolTurn:
    """A look at the ledger and the line. ``change`` is what reads have confirmed; ``grants`` still lack their pods."""

    pool: PoolView
    workers: tuple[WorkerView, ...]
    change: LedgerChange = field(default_factory=LedgerChange)
    holders: tuple[Candidate, ...] = ()
    waiting: tuple[WorkerView, ...] = ()
    refused: Mapping[str, admission.Refusal] = field(default_factory=dict)
    decided: admission.Admission = field(default_factory=admission.Admission)
    grants: tuple[WorkerView, ...] = ()
    closing: bool = False


def begin(world: World, operator: Operator) -> PoolTurn | None:
    """Look at the ledger and the line as they are believed to be; None where there is nothing to request."""
    pool, workers = operator.pool, tuple(operator.workers.values())
    if pool is None:
        return None
    turn = PoolTurn(pool, workers)
    if _wants_finalizer(turn):
        return turn
    turn = _decide(world, operator, _confirm(world, operator, turn))
    return turn if turn.grants or _patch(world, operator, turn) or _may_go(turn.pool) else _close(operator, turn)


def advance(world: World, operator: Operator, turn: PoolTurn) -> PoolTurn | None:
    """Make the next request; a conflict has the pool read again, and the next look begins anew."""
    try:
        if _wants_finalizer(turn):
            kept = (*turn.pool.finalizers, names.POOL_FINALIZER)
            turn = replace(turn, pool=world.patch_pool(turn.pool, finalizers=kept))
            operator.pool = turn.pool
            return _decide(world, operator, _confirm(world, operator, turn))
        if turn.grants:
            return _make(world, operator, turn)
        return _write(world, operator, turn)
    except (ConflictError, NotFoundError):
        operator.pool = world.pool
        return None


def _wants_finalizer(turn: PoolTurn) -> bool:
    alive = any(not worker.ended for worker in turn.workers)
    pool = turn.pool
    return bool(pool.ledger or alive) and not pool.deleting and names.POOL_FINALIZER not in pool.finalizers


def _may_go(pool: PoolView) -> bool:
    return pool.deleting and not pool.ledger and names.POOL_FINALIZER in pool.finalizers


def _confirm(world: World, operator: Operator, turn: PoolTurn) -> PoolTurn:
    """What is believed nominates, a read of the pod decides."""
    released: list[Entry] = []
    found: list[tuple[WorkerView, PodView]] = []
    by_uid = {worker.uid for worker in turn.workers}
    for entry in turn.pool.ledger.values():
        known = operator.pods.get(entry.pod_name)
        if known is not None and known.uid == entry.pod_uid:
            continue
        pod = operator.read_pod(world, entry.pod_name)
        if pod is None or pod.uid != entry.pod_uid:
            released.append(entry)
    for worker in turn.workers:
        known = operator.pod_of(worker)
        if known is None or known.gated or worker.uid in turn.pool.ledger:
            continue
        pod = operator.read_pod(world, worker.pod_name)
        if pod is not None and pod.owner_uid == worker.uid and not pod.gated:
            found.append((worker, pod))
    lost = sum(entry.uid not in by_uid for entry in released)
    return replace(turn, change=LedgerChange(tuple(released), (), tuple(found), lost))


def _decide(world: World, operator: Operator, turn: PoolTurn) -> PoolTurn:
    """Serve the line; what is decided is judged at once."""
    pool, change = turn.pool, turn.change
    by_uid = {worker.uid: worker for worker in turn.workers}
    gone, found = {entry.uid for entry in change.released}, {worker.uid for worker, _ in change.found}
    holders = (
        *(_holder(world, operator, pool, entry, by_uid) for entry in pool.ledger.values() if entry.uid not in gone),
        *(_candidate(world, operator, pool, worker) for worker, _ in change.found),
    )
    waiting = tuple(
        worker for worker in turn.workers if admission.waits_for_room(worker, pool) and worker.uid not in found
    )
    line = [worker for worker in waiting if worker.uid not in turn.refused]
    decided = admission.admit(pool, line, holders)
    world.oracle.decided(pool, line, holders, decided)
    made = {worker.uid for worker, _ in change.reserved}
    grants = tuple(
        worker for worker in decided.grants if names.WORKER_FINALIZER in worker.finalizers and worker.uid not in made
    )
    return replace(turn, holders=holders, waiting=waiting, decided=decided, grants=grants)


def _make(world: World, operator: Operator, turn: PoolTurn) -> PoolTurn:
    """Make one gated pod; one that is there already is taken if it is ours."""
    worker, left = turn.grants[0], replace(turn, grants=turn.grants[1:])
    try:
        pod: PodView | None = world.make_pod(worker)
    except ConflictError:
        pod = operator.read_pod(world, worker.pod_name)
        if pod is None or pod.owner_uid != worker.uid or not pod.gated or pod.deleting:
            return left
    except InvalidError:
        # refused: the line is served once more without this worker
        refused = {**turn.refused, worker.uid: (Reason.CONFIG, "the API server refuses the pod")}
        return _decide(world, operator, replace(turn, refused=refused))
    assert pod is not None
    operator.pods[pod.name] = pod
    reserved = (*turn.change.reserved, (worker, pod.uid))
    return replace(left, change=replace(turn.change, reserved=reserved))


def _patch(world: World, operator: Operator, turn: PoolTurn) -> dict[str, object] | None:
    change = replace(turn.change, reserved=tuple(_still_waiting(operator, turn)))
    patch = status_patch(turn.pool, change, turn.workers, world.now)
    return patch if patch is None or operator.tells or "ledger" in patch else None


def _still_waiting(operator: Operator, turn: PoolTurn) -> list[tuple[WorkerView, str]]:
    """A worker that was told to go while its pod was made has no use for the room any more."""
    kept = []
    for worker, pod_uid in turn.change.reserved:
        known = operator.workers.get(worker.name)
        if known is not None and known.uid == worker.uid and admission.waits_for_room(known, turn.pool):
            kept.append((worker, pod_uid))
    return kept


def _write(world: World, operator: Operator, turn: PoolTurn) -> PoolTurn | None:
    if not turn.closing and (patch := _patch(world, operator, turn)) is not None:
        pool = operator.pool = world.patch_pool(turn.pool, status=patch)
        turn = replace(turn, pool=pool, closing=True)
        if _may_go(pool):
            return turn
    _close(operator, turn)
    if _may_go(turn.pool):
        kept = tuple(name for name in turn.pool.finalizers if name != names.POOL_FINALIZER)
        world.patch_pool(turn.pool, finalizers=kept)
        operator.pool = world.pool
    return None


def _close(operator: Operator, turn: PoolTurn) -> None:
    """Let waiting workers know why, and have others asked for their room."""
    for uid in [entry.uid for entry in turn.change.released] + [worker.uid for worker, _ in turn.change.reserved]:
        operator.quota.pop(uid, None)
    refusals = {**turn.decided.refusals, **turn.refused}
    for worker in turn.waiting:
        if worker.uid in refusals:
            operator.quota[worker.uid] = refusals[worker.uid]
    wanted = {victim.uid for victim in (*turn.decided.victims, *admission.shrink(turn.pool, turn.holders))}
    for uid in turn.pool.ledger.keys() - wanted:
        operator.room_wanted.pop(uid, None)
    for uid in wanted:
        operator.room_wanted[uid] = Reason.ROOM_EVICTION


def _holder(
    world: World, operator: Operator, pool: PoolView, entry: Entry, by_uid: Mapping[str, WorkerView]
) -> Candidate:
    worker = by_uid.get(entry.uid)
    if worker is None:  # its release is only a matter of its pod
        return Candidate(entry.uid, entry.name, WorkerState.DEAD, entry.amount, 0, None, 0, True, False, 0.0)
    return replace(_candidate(world, operator, pool, worker), amount=entry.amount)


def _candidate(world: World, operator: Operator, pool: PoolView, worker: WorkerView) -> Candidate:
    pong, rules = operator.pong_now(worker.uid, world.clock.seconds), rules_for(worker.spec, pool.spec)
    ready = worker.time("readyTime")
    return Candidate(
        uid=worker.uid,
        name=worker.name,
        state=worker.state or WorkerState.SPAWNING,
        amount=worker.need,
        priority=worker.spec.priority,
        unused_for=pong.unused_for if pong else None,
        pending=pong.pending_requests if pong else 0,
        pinned=worker.spec.eviction == "Never",
        young=ready is None or world.now < ready + timedelta(seconds=rules.min_residency),
        idle_timeout=rules.idle_timeout,
    )
