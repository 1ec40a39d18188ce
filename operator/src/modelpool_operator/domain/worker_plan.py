"""The decision for one worker: from what is seen and the time to a plan. No I/O, no clock, no memory.

Read it from ``plan_worker`` down: one function per state, each a list of rules in the order in which they win.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from modelpool_api import LIVE_STATES, HealthStatus, WorkerState
from modelpool_api.pod import LINGER_SECONDS
from modelpool_operator.api import names
from modelpool_operator.api.names import Reason
from modelpool_operator.domain import failures, mirror
from modelpool_operator.domain.failures import Failure
from modelpool_operator.domain.idle_eviction import idle_eviction
from modelpool_operator.domain.objects import WorkerView
from modelpool_operator.domain.plan import (
    Action,
    AddFinalizer,
    AskEvict,
    AskPool,
    DeletePod,
    EnsureService,
    LiftGate,
    Plan,
    RemoveFinalizer,
)
from modelpool_operator.domain.podview import PodView
from modelpool_operator.domain.seen import Seen
from modelpool_operator.domain.status import status_fields, status_gauges
from modelpool_operator.domain.transitions import Move

_S = WorkerState
#: Seconds that a process which no longer answers gets between SIGTERM and SIGKILL.
_KILL_GRACE: Final = 5
_TO_SCHEDULER: Final = "the reservation is made; the pod waits for the scheduler"
#: Waiting for these is nobody's fault; past the deadline it has a name of its own.
_WAITS: Final = (Reason.POD_PENDING, Reason.QUOTA_RESERVED)


@dataclass
class _Draft:
    """What one state's rules want; turned into a Plan at the end."""

    moves: tuple[Move, ...] = ()
    actions: tuple[Action, ...] = ()
    failure: Failure | None = None
    waiting: tuple[str, str] | None = None
    from_pong: bool = False
    extra: dict[str, object] = field(default_factory=dict)
    deadlines: tuple[datetime, ...] = ()


def plan_worker(seen: Seen, now: datetime) -> Plan:
    """Decide what happens to one worker now."""
    worker = seen.worker
    if worker.state is None:
        return _plan_new(worker)
    draft = _RULES[worker.state](seen, now)
    actions = list(draft.actions)
    if worker.state in LIVE_STATES and not worker.deleting and names.WORKER_FINALIZER not in worker.finalizers:
        actions.insert(0, AddFinalizer())
    if worker.state not in (_S.FAILED, _S.DEAD, _S.EVICTING) and not draft.moves:
        actions += _service(seen)
    destructive = any(move.to in (_S.FAILED, _S.EVICTING, _S.DEAD) for move in draft.moves) or any(
        isinstance(action, DeletePod | RemoveFinalizer) for action in actions
    )
    return Plan(
        moves=draft.moves,
        fields=status_fields(
            worker,
            pod=seen.pod,
            pong=seen.pong,
            entry=seen.entry,
            quota=seen.refusal,
            health=seen.health_status,
            service_taken=seen.service_taken,
            service_made=seen.service_made,
            moves=draft.moves,
            failure=draft.failure,
            waiting=draft.waiting,
            mirrored=draft.from_pong,
            extra=draft.extra,
            now=now,
        ),
        gauges=status_gauges(worker, seen.pong, now),
        actions=tuple(actions),
        destructive=destructive,
        wake_after=min(((at - now).total_seconds() for at in draft.deadlines), default=None),
    )


def _plan_new(worker: WorkerView) -> Plan:
    if worker.deleting:
        return Plan(actions=(RemoveFinalizer(),) if names.WORKER_FINALIZER in worker.finalizers else ())
    actions = () if names.WORKER_FINALIZER in worker.finalizers else (AddFinalizer(),)
    return Plan(accept=True, actions=(*actions, AskPool()))


def _spawning(seen: Seen, now: datetime) -> _Draft:
    worker, pod = seen.worker, seen.charged_pod
    if leaving := _leaving(seen):
        return _Draft(moves=(_move(_S.EVICTING, *leaving, now),))
    if pod is None:
        if worker.had_pod:
            return _fail(Failure(Reason.POD_LOST, "the pod is gone before it was ready; make a new ModelWorker"), now)
        return _Draft(actions=_ask(seen), waiting=seen.refusal)
    if pod.deleting:
        return _Draft(moves=(_move(_S.EVICTING, *_terminating(pod), now),))
    if pod.gated:
        entry = seen.entry
        if entry is None or entry.pod_uid != pod.uid:
            return _Draft(actions=_ask(seen), waiting=seen.refusal)
        return _Draft(
            actions=(LiftGate(pod.uid, pod.resource_version),),
            waiting=(Reason.QUOTA_RESERVED, _TO_SCHEDULER),
        )
    if failure := failures.hopeless_start(pod):
        return _fail(failure, now)
    if pod.container and pod.container.ever_ran:
        started = pod.container.started or now
        return _Draft(
            moves=(_move(_S.LOADING, Reason.CONTAINER_STARTED, "the container runs and loads the model", started),)
        )
    reason, sentence = failures.waiting_reason(pod)
    deadline = (pod.gate_lifted or worker.since or now) + timedelta(seconds=seen.rules.schedule_deadline)
    if reason is Reason.POD_PENDING and not pod.scheduled:
        reason, sentence = Reason.QUOTA_RESERVED, _TO_SCHEDULER  # said already: not worth a write of its own
    if now >= deadline:
        late = f"not started within the schedule deadline of {seen.rules.schedule_deadline:.0f} s: {sentence}"
        return _fail(Failure(Reason.SCHEDULE_DEADLINE if reason in _WAITS else reason, late), now)
    return _Draft(waiting=(reason, sentence), deadlines=(deadline,))


def _loading(seen: Seen, now: datetime) -> _Draft:
    worker, pod = seen.worker, seen.charged_pod
    if draft := _stopped(seen, now):
        return draft
    if pod is None:
        return _fail(Failure(Reason.POD_LOST, "the pod is gone before it was ready; make a new ModelWorker"), now)
    if pod.phase == "Failed":
        return _fail(failures.pod_failed(pod), now)
    if failure := seen.failure:
        return _fail(failure, now)
    moves = _from_pong(seen, now)
    deadline = (worker.since or now) + timedelta(seconds=seen.rules.load_deadline)
    if now >= deadline and not moves:
        late = f"not loaded within the load deadline of {seen.rules.load_deadline:.0f} s"
        ended = pod.container.last if pod.container else None
        return _fail(Failure(Reason.LOAD_DEADLINE, late, ended.exit_code if ended else None), now)
    return _Draft(moves=moves, from_pong=True, failure=seen.new_end, waiting=seen.back_off, deadlines=(deadline,))


def _serving(seen: Seen, now: datetime) -> _Draft:
    worker, pod, rules = seen.worker, seen.charged_pod, seen.rules
    if pod is None:
        if seen.entry is not None:
            return _Draft(actions=(AskPool(),))
        return _Draft(moves=(_move(_S.DEAD, Reason.POD_LOST, "the pod is gone; a lost pod is not made again", now),))
    if draft := _stopped(seen, now):
        return draft
    if pod.phase == "Failed":
        given_up = failures.pod_failed(pod)
        return _Draft(moves=(_move(_S.EVICTING, given_up.reason, given_up.message, now),), failure=given_up)
    if failure := seen.failure:
        return _fail(failure, now)
    if seen.restarted:
        end = failures.describe_end(pod.container.last) if pod.container and pod.container.last else None
        message = end.message if end else "the container was restarted and loads the model again"
        return _Draft(moves=(_move(_S.LOADING, Reason.CONTAINER_RESTARTED, message, now),), failure=end)
    if seen.health_status is HealthStatus.UNHEALTHY and not seen.cut_off:
        missed = f"{seen.health.misses} pings in a row failed, the last one: {seen.health.last_outcome}"
        dead = Failure(Reason.HEALTH_CHECK, missed)
        return _Draft(moves=(_move(_S.EVICTING, dead.reason, dead.message, now),), failure=dead)
    if moves := _from_pong(seen, now):
        return _Draft(moves=moves, from_pong=True, failure=seen.new_end)
    ask, due = idle_eviction(seen, now)
    ready_since = worker.time("readyTime")
    forgiven = int(worker.status.get("restartsForgiven") or 0)
    restarts = pod.container.restarts if pod.container else 0
    draft = _Draft(actions=ask, deadlines=due)
    if ready_since and restarts > forgiven:
        forget = ready_since + timedelta(seconds=rules.restart_window)
        if now >= forget:
            draft.extra["restartsForgiven"] = restarts
        else:
            draft.deadlines = (*due, forget)
    return draft


def _evicting(seen: Seen, now: datetime) -> _Draft:
    pod, worker = seen.pod, seen.worker
    if pod is None:
        if seen.entry is not None:
            return _Draft(actions=(AskPool(),))
        reason, why = str(worker.status.get("reason") or Reason.POD_LOST), str(worker.status.get("message") or "")
        gone = "the pod is gone and its reservation released" if worker.had_pod else "there was no pod yet"
        return _Draft(moves=(_move(_S.DEAD, reason, f"{gone}; {why}" if why else gone, now),))
    if pod.deleting:
        return _Draft()
    deaf = worker.status.get("reason") in (Reason.HEALTH_CHECK, Reason.EXITED_UNEXPECTEDLY)
    nothing_to_finish = deaf or pod.finished or _never_answered(seen)
    grace = _KILL_GRACE if nothing_to_finish else int(seen.rules.drain_timeout + 2 * LINGER_SECONDS)
    return _Draft(actions=(DeletePod(pod.uid, grace),))


def _never_answered(seen: Seen) -> bool:
    """Whether the process left before it took a request; one that has only begun does not even hear SIGTERM yet."""
    chain = seen.worker.status.get("transitions") or ()
    before = chain[-1]["from"] if chain else ""
    silent = seen.pong is None and seen.pod is not None and not seen.pod.ready
    return silent and before in (_S.SPAWNING, _S.LOADING)


def _failed(seen: Seen, now: datetime) -> _Draft:
    pod, worker = seen.pod, seen.worker
    if pod is not None:
        return _Draft(actions=() if pod.deleting else (DeletePod(pod.uid, _KILL_GRACE),))
    if seen.entry is not None:
        return _Draft(actions=(AskPool(),))
    until = (worker.since or now) + timedelta(seconds=seen.rules.failed_retention)
    if now >= until or worker.deleting or worker.spec.shutdown:
        reason, message = str(worker.status.get("reason") or ""), str(worker.status.get("message") or "")
        return _Draft(moves=(_move(_S.DEAD, reason, message, now),))
    return _Draft(deadlines=(until,))


def _dead(seen: Seen, now: datetime) -> _Draft:
    del now
    if seen.pod is not None and not seen.pod.deleting:
        return _Draft(actions=(DeletePod(seen.pod.uid, _KILL_GRACE),))
    if seen.entry is not None:
        return _Draft(actions=(AskPool(),))
    if seen.worker.deleting and seen.pod is None and names.WORKER_FINALIZER in seen.worker.finalizers:
        return _Draft(actions=(RemoveFinalizer(),))
    return _Draft()


def _unknown(seen: Seen, now: datetime) -> _Draft:
    """A newer version's state: leave it alone, unless the user wants it gone."""
    if leaving := _leaving(seen):
        return _Draft(moves=(_move(_S.EVICTING, *leaving, now),))
    return _Draft()


_RULES: Final = {
    _S.SPAWNING: _spawning,
    _S.LOADING: _loading,
    _S.READY: _serving,
    _S.PROCESSING: _serving,
    _S.IDLE: _serving,
    _S.EVICTING: _evicting,
    _S.FAILED: _failed,
    _S.DEAD: _dead,
    _S.UNKNOWN: _unknown,
}


def _leaving(seen: Seen) -> tuple[Reason, str] | None:
    """Return why the worker has to go, whatever it is doing."""
    if seen.worker.deleting:
        return Reason.DELETED, "the ModelWorker is being deleted"
    if seen.worker.spec.shutdown:
        return Reason.SHUTDOWN, "spec.shutdown is set"
    if seen.pool is not None and seen.pool.draining:
        return Reason.POOL_DRAIN, f"the pool {seen.pool.name} is being drained"
    return None


def _stopped(seen: Seen, now: datetime) -> _Draft | None:
    """Handle what ends a worker whose container has started: its own word, a wish, a pod that goes or went away."""
    pod = seen.charged_pod
    if seen.pong is not None and seen.pong.state is _S.EVICTING and (moves := _from_pong(seen, now)):
        return _Draft(moves=moves, from_pong=True)
    if pod is None:
        return None
    if pod.deleting:
        return _Draft(moves=(_move(_S.EVICTING, *_terminating(pod), now),))
    if leaving := _leaving(seen):
        if seen.reachable and not pod.finished:
            return _Draft(actions=(AskEvict(leaving[0], force=True),))
        return _Draft(moves=(_move(_S.EVICTING, *leaving, now),))
    if agreed := failures.agreed_exit(pod):
        return _Draft(moves=(_move(_S.EVICTING, *agreed, now),))
    if failure := failures.unexpected_exit(pod):
        return _Draft(moves=(_move(_S.EVICTING, failure.reason, failure.message, now),), failure=failure)
    return None


def _from_pong(seen: Seen, now: datetime) -> tuple[Move, ...]:
    state = seen.worker.state
    if seen.pong is None or state is None or seen.pod is None:
        return ()
    return mirror.moves_from_pong(state, seen.worker.mirrored, seen.pong, pod_ready=seen.pod.ready, now=now)


def _terminating(pod: PodView) -> tuple[Reason, str]:
    if lost := failures.node_lost(pod):
        return lost.reason, lost.message
    why = f" ({pod.disruption})" if pod.disruption else ""
    return Reason.POD_TERMINATING, f"the pod is being deleted{why}"


def _ask(seen: Seen) -> tuple[Action, ...]:
    """Ask the pool once; it looks at its line again by itself whenever something changes."""
    return () if seen.quota or seen.pool is None else (AskPool(),)


def _service(seen: Seen) -> list[Action]:
    worker = seen.worker
    wanted = worker.spec.service and not worker.status.get("endpoint") and not seen.service_made
    waits = worker.state is _S.SPAWNING and (seen.charged_pod is None or seen.entry is None)
    return [EnsureService()] if wanted and not waits and not worker.deleting else []


def _fail(failure: Failure, now: datetime) -> _Draft:
    return _Draft(moves=(_move(_S.FAILED, failure.reason, failure.message, now),), failure=failure)


def _move(to: WorkerState, reason: str, message: str, at: datetime) -> Move:
    return Move(to, str(reason), message, at)
