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
    rules, pong, worker = seen.rules, seen.pong, seen.worker
    if pong is None or worker.spec.eviction == "Never" or not seen.reachable:
        return (), ()
    room = seen.room_wanted
    # for room a worker has to be past its idle timeout only: Idle, or about to be
    enough = min(rules.idle_timeout, rules.evict_after) if room else rules.evict_after
    ready_since = worker.time("readyTime")
    young_until = ready_since + timedelta(seconds=rules.min_residency) if ready_since else now
    unused = pong.unused_for
    if unused is None or pong.pending_requests:
        return (), ()
    due = max(now + timedelta(seconds=max(0.0, enough - unused)), young_until)
    if due > now or not WorkerHandle.from_pong(pong).is_evictable(enough):
        return (), (due,)
    return (AskEvict(room or Reason.IDLE_EVICTION, unused_for=enough),), (now + timedelta(seconds=1),)


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
