"""When a worker that nobody uses is asked to go. The worker itself decides; this only says when to ask."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from modelpool_api import EVICTABLE_STATES, FLIP_STATES, LIVE_STATES, WorkerHandle
from modelpool_operator.api.names import Reason
from modelpool_operator.domain.objects import WorkerView
from modelpool_operator.domain.plan import Action, AskEvict
from modelpool_operator.domain.seen import Seen


def idle_eviction(seen: Seen, now: datetime) -> tuple[tuple[Action, ...], tuple[datetime, ...]]:
    """Return the question to ask a worker that has been unused for long enough, or when to look again."""
    pong = seen.pong
    if pong is None or not seen.reachable:
        return (), ()
    if pong.unused_for is None or pong.pending_requests:
        return (), ()
    asked = _reason(seen)
    if asked is None:
        return (), ()
    reason, enough, young_until = asked
    due = max(now + timedelta(seconds=max(0.0, enough - pong.unused_for)), young_until or now)
    if due > now or not WorkerHandle.from_pong(pong).is_evictable(enough):
        return (), (due,)
    return (AskEvict(reason, unused_for=enough),), (now + timedelta(seconds=1),)


def _reason(seen: Seen) -> tuple[Reason, float, datetime | None] | None:
    """Return what the worker is asked to go for, how long it must have been unused, and until when it is too young."""
    rules, worker = seen.rules, seen.worker
    if seen.dismissed is not None:  # others serve in its place, or nobody wants so many
        return seen.dismissed, 0.0, None
    if worker.spec.eviction == "Never" or seen.kept:
        return None
    ready_since = worker.time("readyTime")
    young_until = ready_since + timedelta(seconds=rules.min_residency) if ready_since else None
    stays = rules.evict_after if seen.keep_alive is None else float(seen.keep_alive)
    if seen.room_wanted:
        # for room a worker has to be past its idle timeout only: Idle, or about to be
        enough = min(rules.idle_timeout, rules.evict_after if stays < 0 else stays)
        return seen.room_wanted, enough, young_until
    return None if stays < 0 else (Reason.IDLE_EVICTION, stays, young_until)


def idle_eviction_due(seen: Seen, now: datetime) -> bool:
    """Whether the maintenance pass should have this worker looked at: it may be asked to go now."""
    return seen.worker.state in FLIP_STATES and bool(idle_eviction(seen, now)[0])


def all_workers_idle(workers: Iterable[WorkerView], now: datetime, threshold: float) -> bool:
    """Whether a group of workers has been unused for ``threshold`` seconds, every one of them, by their status.

    Those that are leaving or gone count as gone. False for an empty group: nobody is idle in it. False whenever one
    is Spawning, Loading or Processing, or has something pending.
    """
    group = [worker for worker in workers if worker.state in LIVE_STATES]
    return bool(group) and all(_unused(worker, now, threshold) for worker in group)


def _unused(worker: WorkerView, now: datetime, threshold: float) -> bool:
    if worker.state not in EVICTABLE_STATES or worker.status.get("pendingRequests"):
        return False
    uses = [moment for moment in (worker.time("lastUsedTime"), worker.time("readyTime")) if moment is not None]
    return bool(uses) and (now - max(uses)).total_seconds() >= threshold
