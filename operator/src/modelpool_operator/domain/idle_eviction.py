"""When a worker that nobody uses is asked to go. The worker itself decides; this only says when to ask."""

from datetime import datetime, timedelta

from modelpool_api import FLIP_STATES, WorkerHandle
from modelpool_operator.api.names import Reason
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
