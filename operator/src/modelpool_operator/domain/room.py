"""Making room: which workers to ask to go so that one more fits, or by how much it still falls short.

A whole set first, then the asking: a need that cannot be met evicts nobody. What leaving workers are about to free
counts as coming, so one need never empties the pool.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from modelpool_api import WorkerState
from modelpool_operator.domain.objects import NOTHING, Amount, sum_amounts


@dataclass(frozen=True, slots=True)
class Candidate:
    """A worker that holds a reservation, as far as making room is concerned."""

    uid: str
    name: str
    state: WorkerState
    amount: Amount
    priority: int
    #: seconds since its last request ended or since Ready; None where it has never been ready, or is busy
    unused_for: float | None
    pending: int
    #: eviction Never, below minReplicas, or in demand
    pinned: bool
    #: Ready for less than the pool's minResidency
    young: bool
    idle_timeout: float

    @property
    def leaving(self) -> bool:
        """Whether its reservation is on its way back."""
        return self.state in (WorkerState.EVICTING, WorkerState.FAILED, WorkerState.DEAD)

    def may_go(self, priority: int) -> bool:
        """Whether it may be asked to go for a worker of this priority."""
        if self.pinned or self.young or self.pending or self.unused_for is None or self.priority > priority:
            return False
        if self.state is WorkerState.IDLE:
            return True
        return self.state is WorkerState.READY and self.unused_for >= self.idle_timeout


@dataclass(frozen=True, slots=True)
class RoomPlan:
    """Whom to ask to go. ``shortfall`` is what would still be missing then; it is zero where the need can be met."""

    victims: tuple[Candidate, ...] = ()
    coming: Amount = NOTHING
    shortfall: Amount = NOTHING

    @property
    def feasible(self) -> bool:
        """Whether the need is met once the victims and those already leaving are gone."""
        return self.shortfall == NOTHING


def plan_room(need: Amount, free: Amount, workers: Iterable[Candidate], *, priority: int = 0) -> RoomPlan:
    """Choose whom to ask to go so that ``need`` fits into ``free`` plus what they hold.

    Idle workers go before Ready ones, among them the least recently used first; nobody goes who is not needed. Where
    it cannot be enough, nobody goes at all and the shortfall is returned.
    """
    known = list(workers)
    coming = sum_amounts(candidate.amount for candidate in known if candidate.leaving)
    room = free + coming
    if need.fits(room):
        return RoomPlan(coming=coming)
    order = sorted(
        (candidate for candidate in known if candidate.may_go(priority)),
        key=lambda candidate: (candidate.state is not WorkerState.IDLE, -(candidate.unused_for or 0), candidate.uid),
    )
    chosen: list[Candidate] = []
    for candidate in order:
        missing = need.beyond(room)
        if missing == NOTHING:
            break
        helps = min(candidate.amount.memory_mib, missing.memory_mib) + min(candidate.amount.gpus, missing.gpus)
        if helps:
            chosen.append(candidate)
            room += candidate.amount
    shortfall = need.beyond(room)
    if shortfall != NOTHING:
        return RoomPlan(coming=coming, shortfall=shortfall)
    for candidate in list(chosen):  # one chosen early may have become needless through a bigger one chosen later
        if need.fits(room - candidate.amount):
            chosen.remove(candidate)
            room -= candidate.amount
    return RoomPlan(tuple(chosen), coming)
