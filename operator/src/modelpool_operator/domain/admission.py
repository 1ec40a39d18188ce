"""Who gets a reservation now, who waits, and for what: by priority, then age.

Room that is coming back for the first in line is not given to lower ranks; other room may be.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from modelpool_api import WorkerState
from modelpool_operator.api.names import Reason
from modelpool_operator.domain.objects import NOTHING, Amount, PoolView, WorkerView, sum_amounts
from modelpool_operator.domain.pods import template_problem
from modelpool_operator.domain.room import Candidate, RoomPlan, plan_room

#: What a pool's ledger may hold (the CRD's bound).
MAX_ENTRIES: Final = 1000

Refusal = tuple[Reason, str]


@dataclass(frozen=True)
class Admission:
    """``grants`` in the order of their rank; a sentence for everyone else; whom to ask to go for the first in line."""

    grants: tuple[WorkerView, ...] = ()
    refusals: Mapping[str, Refusal] = field(default_factory=dict)
    victims: tuple[Candidate, ...] = ()


def waits_for_room(worker: WorkerView, pool: PoolView) -> bool:
    """Whether a worker wants a reservation of this pool; one whose pod was charged once never gets a second."""
    return (
        worker.state is WorkerState.SPAWNING
        and worker.uid not in pool.ledger
        and not worker.had_pod
        and not worker.deleting
        and not worker.spec.shutdown
    )


def rank(worker: WorkerView) -> tuple[int, str, str]:
    """Sort key of the line: higher priority first, then the older one."""
    created = worker.created.isoformat() if worker.created else ""
    return -worker.spec.priority, created, worker.name


def admit(pool: PoolView, waiting: Iterable[WorkerView], holders: Sequence[Candidate]) -> Admission:
    """Serve the line out of what is free; ``holders`` are the pool's workers with a reservation."""
    free = pool.budget - sum_amounts(holder.amount for holder in holders)
    coming = sum_amounts(holder.amount for holder in holders if holder.leaving)
    grants: list[WorkerView] = []
    refusals: dict[str, Refusal] = {}
    victims: tuple[Candidate, ...] = ()
    first: Amount | None = None  # what the first one who has to wait needs
    for worker in sorted(waiting, key=rank):
        need = worker.need
        if refusal := _never(worker, pool):
            refusals[worker.uid] = refusal
        elif not pool.admits:
            refusals[worker.uid] = (Reason.POOL_HELD, f"pool {pool.name} is held or being drained and admits nothing")
        elif len(holders) + len(grants) >= MAX_ENTRIES:
            full = f"pool {pool.name} has {MAX_ENTRIES} reservations, the most one pool holds; use a second pool"
            refusals[worker.uid] = (Reason.WAITING_FOR_QUOTA, full)
        elif need.fits(free) and (first is None or not _delays(first, free, coming, need)):
            grants.append(worker)
            free -= need
        else:
            if first is None:
                first = need
                room = plan_room(need, free, holders, priority=worker.spec.priority)
                victims = room.victims
                refusals[worker.uid] = (Reason.WAITING_FOR_QUOTA, _short(pool, need, free, room))
            else:
                room = RoomPlan(coming=coming)
                refusals[worker.uid] = (Reason.WAITING_FOR_QUOTA, _short(pool, need, free, room))
    return Admission(tuple(grants), refusals, victims)


def shrink(pool: PoolView, holders: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return whom to ask to go where a pool was shrunk below what it has reserved: whoever may go, as far as it helps.

    Here a part of the way is better than none: the pool is over its budget until it fits.
    """
    reserved = sum_amounts(holder.amount for holder in holders)
    over = reserved.beyond(pool.budget)
    if over == NOTHING:
        return ()
    remaining = over.beyond(sum_amounts(holder.amount for holder in holders if holder.leaving))
    chosen: list[Candidate] = []
    highest = max((holder.priority for holder in holders), default=0)
    willing = [holder for holder in holders if holder.may_go(highest)]
    for holder in sorted(willing, key=lambda item: (item.state is not WorkerState.IDLE, -(item.unused_for or 0))):
        if remaining == NOTHING:
            break
        if (holder.amount.memory_mib and remaining.memory_mib) or (holder.amount.gpus and remaining.gpus):
            chosen.append(holder)
            remaining = remaining.beyond(holder.amount)
    return tuple(chosen)


def _never(worker: WorkerView, pool: PoolView) -> Refusal | None:
    beyond = worker.need.beyond(pool.budget)
    if beyond != NOTHING:
        return Reason.EXCEEDS_POOL, (
            f"needs {worker.need}, the whole pool {pool.name} has {pool.budget.memory_mib} MiB and "
            f"{pool.budget.gpus} GPUs: it can never fit; "
            "enlarge the pool or ask for less"
        )
    if problem := template_problem(worker, pool):
        return Reason.CONFIG, problem
    return None


def _delays(first: Amount, free: Amount, coming: Amount, need: Amount) -> bool:
    """Whether giving ``need`` away now would take room that is coming back for the first in line."""
    return first.fits(free + coming) and not first.fits(free - need + coming)


def _short(pool: PoolView, need: Amount, free: Amount, room: RoomPlan) -> str:
    missing = need.beyond(free)
    said = f"needs {need}, pool {pool.name} has {_positive(free)} free of {pool.budget}"
    if missing != NOTHING:
        said += f": {missing} short"
    else:
        said += ", kept for a worker that is ahead in line"
    if room.victims:
        said += f"; asked {', '.join(victim.name for victim in room.victims)[:200]} to go"
    elif room.coming != NOTHING:
        said += f"; {room.coming} coming back"
    return said


def _positive(amount: Amount) -> Amount:
    return Amount(max(0, amount.memory_mib), max(0, amount.gpus))
