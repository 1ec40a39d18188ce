"""How many workers a Model wants, how many to make, whom to let go and whom to keep. No I/O, no clock.

Nobody who works is ever told to go: what is too much becomes idle and goes by its idle time, as any worker does.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from modelpool_api import FLIP_STATES, WorkerState
from modelpool_operator.api.names import Reason

_S = WorkerState
#: Pause after the first failure of a template; doubled with each further one.
FIRST_PAUSE: Final = timedelta(seconds=10)
LONGEST_PAUSE: Final = timedelta(minutes=5)
#: What the next worker of the same template would fail of as well.
PERMANENT: Final = frozenset({Reason.MODEL_LOAD_FAILED, Reason.CONFIG, Reason.EXCEEDS_POOL})
#: States on the way to serving.
_COMING: Final = (_S.SPAWNING, _S.LOADING)


@dataclass(frozen=True, slots=True)
class Scale:
    """What a Model's spec says of its size; ``target_pending`` requests at once are enough for one worker."""

    min_replicas: int = 0
    max_replicas: int = 1
    replicas: int = 0
    target_pending: int = 8
    #: the workers are never evicted: what is too much must be told to go
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class Member:
    """One worker of a Model. ``unused_for`` is in seconds, None while it is not known or at work."""

    uid: str
    name: str
    state: WorkerState
    template: str
    created: datetime
    pending: int = 0
    unused_for: float | None = None
    #: told to stop, or deleted
    leaving: bool = False
    #: a pod is charged for it: it does not only wait for its reservation
    charged: bool = True

    @property
    def here(self) -> bool:
        """Whether it serves or will; one that is being evicted counts as gone."""
        return not self.leaving and (self.state in FLIP_STATES or self.state in _COMING)


@dataclass(frozen=True, slots=True)
class Failed:
    """A worker of a Model that has failed: when, why, and of which template."""

    uid: str
    template: str
    reason: str
    message: str
    at: datetime


@dataclass(frozen=True, slots=True)
class BackOff:
    """Failures in a row of workers of one template; ``last`` is the latest of them."""

    failures: int
    last: Failed

    @property
    def permanent(self) -> bool:
        """Whether the next worker of the template would fail as well."""
        return self.last.reason in PERMANENT

    @property
    def retry_at(self) -> datetime | None:
        """When the next worker may be made; None: only of another template."""
        if self.permanent:
            return None
        doubled: timedelta = FIRST_PAUSE * 2 ** min(self.failures - 1, 16)
        return self.last.at + min(LONGEST_PAUSE, doubled)

    def holds(self, now: datetime) -> bool:
        """Whether no worker may be made now."""
        return self.retry_at is None or now < self.retry_at


def count_failures(
    known: BackOff | None, template: str, failed: Iterable[Failed], *, proven: datetime | None = None
) -> BackOff | None:
    """Return the failures in a row of this template: those known, and those that have come since.

    Those before ``proven`` count no more: a worker of the template had served for a while then. One that another try
    cannot mend stays the last word, whatever others that were on their way fail of.
    """
    if known is not None and known.last.template != template:
        known = None
    if known is not None and proven is not None and not known.permanent and known.last.at <= proven:
        known = None
    for each in sorted(failed, key=lambda one: (one.at, one.uid)):
        if each.template != template or (proven is not None and each.at <= proven):
            continue
        seen = known is not None and (each.at, each.uid) <= (known.last.at, known.last.uid)
        if not seen and not (known and known.permanent):
            known = BackOff(known.failures + 1 if known else 1, each)
    return known


@dataclass(frozen=True)
class ScalePlan:
    """``keep`` are the uids that neither idleness nor the room of others may end."""

    desired: int
    create: int = 0
    let_go: tuple[str, ...] = ()
    keep: frozenset[str] = field(default_factory=frozenset)
    #: workers are missing and none is made: too many have failed
    held: bool = False


def floor(scale: Scale, *, demand: bool) -> int:
    """Return how many are kept however little there is to do."""
    return _within(max(scale.min_replicas, scale.replicas, 1 if demand else 0), scale)


def desired(scale: Scale, members: Iterable[Member], *, demand: bool) -> int:
    """Return how many workers there shall be: the floor, or as many as the pending requests want, up to the most."""
    pending = sum(member.pending for member in members if member.here)
    return _within(max(floor(scale, demand=demand), -(-pending // max(1, scale.target_pending))), scale)


def plan_scale(
    scale: Scale,
    template: str,
    members: Sequence[Member],
    back_off: BackOff | None,
    now: datetime,
    *,
    demand: bool,
) -> ScalePlan:
    """Decide for one Model. ``template`` is the one that new workers have; members of others are replaced."""
    wanted = desired(scale, members, demand=demand)
    here = [member for member in members if member.here]
    current = [member for member in here if member.template == template]
    old = [member for member in here if member.template != template]
    missing = wanted - len(here)
    if old and len(current) < wanted and not any(member.state in _COMING for member in current):
        missing = max(missing, 1)  # one more for the time of the change
    held = missing > 0 and back_off is not None and back_off.holds(now)
    return ScalePlan(
        desired=wanted,
        create=0 if held else max(0, missing),
        let_go=tuple(_let_go(scale, wanted, current, old)),
        keep=_keep(floor(scale, demand=demand), current, old),
        held=held,
    )


def _within(count: int, scale: Scale) -> int:
    return max(0, min(count, scale.max_replicas))


def _let_go(scale: Scale, wanted: int, current: Sequence[Member], old: Sequence[Member]) -> Iterator[str]:
    """Name those who only wait though nobody waits for them, and those at rest whose place another one has."""
    yield from (member.name for member in old if _waits(member))
    spare = len(current) - wanted
    newest_first = sorted(current, key=lambda member: (member.created, member.name), reverse=True)
    waiting = [member.name for member in newest_first if _waits(member)]
    yield from waiting[: max(0, spare)]
    # who may not be there is told to go, and so is who is not wanted where idleness ends nobody
    beyond = spare if scale.pinned else len(current) - scale.max_replicas
    yield from _at_rest(current)[: max(0, beyond - len(waiting))]
    serving = sum(member.state in FLIP_STATES for member in current)
    there = sum(not _waits(member) for member in old)
    replaced = max(0, serving + there - wanted)
    if waiting and not replaced:
        replaced = 1  # there is no room for a successor beside it: the least used one makes room
    yield from _at_rest(old)[:replaced]


def _waits(member: Member) -> bool:
    return member.state is _S.SPAWNING and not member.charged


def _at_rest(members: Iterable[Member]) -> list[str]:
    """Name those who have nothing to do, the longest unused first."""
    resting = [member for member in members if member.state in (_S.READY, _S.IDLE) and member.pending == 0]
    resting.sort(key=lambda member: (member.state is not _S.IDLE, -(member.unused_for or 0.0), member.created))
    return [member.name for member in resting]


def _keep(count: int, current: Sequence[Member], old: Sequence[Member]) -> frozenset[str]:
    """Choose whom the floor protects: those of the present template, those who serve, the most recently used."""
    ranked = sorted(
        (*current, *old),
        key=lambda member: (member in old, member.state not in FLIP_STATES, member.unused_for or 0.0, member.created),
    )
    return frozenset(member.uid for member in ranked[:count])
