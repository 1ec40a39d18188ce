"""The reconcile of one ModelWorker: read, plan, carry out. The plan decides; this file only does."""

from collections.abc import Callable
from typing import Any, Final

import structlog

from modelpool_api import FLIP_STATES, WorkerState
from modelpool_operator.api import names
from modelpool_operator.api.names import Reason
from modelpool_operator.domain import plan as plans
from modelpool_operator.domain.conditions import merged, worker_conditions
from modelpool_operator.domain.errors import ConflictError, DeniedError, InvalidError, NotFoundError
from modelpool_operator.domain.objects import WorkerView
from modelpool_operator.domain.plan import Plan
from modelpool_operator.domain.pods import build_service
from modelpool_operator.domain.podview import PodView, format_time
from modelpool_operator.domain.seen import Seen
from modelpool_operator.domain.transitions import Move, appended, is_flip
from modelpool_operator.domain.worker_plan import plan_worker
from modelpool_operator.kube import paths
from modelpool_operator.kube.client import KubeClient
from modelpool_operator.kube.events import EventRecorder
from modelpool_operator.metrics import OperatorMetrics
from modelpool_operator.runtime.budget import WriteBudget
from modelpool_operator.runtime.cache import Key
from modelpool_operator.runtime.knowledge import Knowledge
from modelpool_operator.runtime.pinger import Pingers, Target

_log = structlog.get_logger(__name__)
#: Steps of one reconcile; a whole quick life has fewer.
_STEPS: Final = 12
#: A worker's load is written at most this often, seconds.
_FLIP_PAUSE: Final = 0.5
_GAUGE_PAUSE: Final = 10.0
_LASTING: Final = frozenset({"readyTime", "coldStartSeconds", "mirrored", "restarts", "lastFailure"})
_BAD: Final = frozenset(
    {Reason.HEALTH_CHECK, Reason.NODE_LOST, Reason.POD_LOST, Reason.EXITED_UNEXPECTEDLY, Reason.CONTAINER_RESTARTED}
)


class WorkerReconciler:
    """Carries plans out. Every write carries the resourceVersion it was planned on."""

    def __init__(
        self,
        client: KubeClient,
        knowledge: Knowledge,
        pingers: Pingers,
        events: EventRecorder,
        metrics: OperatorMetrics,
        budget: WriteBudget,
        ask_pool: Callable[[Key], None],
        again: Callable[[Key, float], None],
        monotonic: Callable[[], float],
    ) -> None:
        self._client = client
        self._knowledge = knowledge
        self._pingers = pingers
        self._events = events
        self._metrics = metrics
        self._budget = budget
        self._ask_pool = ask_pool
        self._again = again
        self._monotonic = monotonic
        self._flipped: dict[str, float] = {}
        self._gauged: dict[str, float] = {}

    async def reconcile(self, key: Key) -> None:
        """Bring one worker as far as it can go now."""
        worker = self._knowledge.workers.get(key)
        if worker is None:
            return
        fresh = False
        for _ in range(_STEPS):
            seen = self._knowledge.see(worker)
            plan = plan_worker(seen, self._client.clock.now())
            if plan.destructive and not fresh:
                found = await self.read(key)
                if found is None:
                    return
                worker, fresh = found, True
                continue
            fresh = False
            try:
                worker, progress = await self._carry_out(seen, plan)
            except (ConflictError, InvalidError, NotFoundError) as error:
                # somebody else wrote first, or our view was older than the rules allow, or it is gone: look again
                self._metrics.conflicts.labels("worker").inc()
                _log.info("worker.conflict", worker=key, status=error.status)
                found = await self.read(key)
                if found is None:
                    return
                if not isinstance(error, ConflictError) and found.resource_version == worker.resource_version:
                    raise
                worker = found
                continue
            self._watch_process(worker)
            if plan.wake_after is not None:
                self._again(key, max(0.05, plan.wake_after))
            if not progress:
                return
        self._again(key, 0.1)

    async def read(self, key: Key) -> WorkerView | None:
        """Read worker, pod and pool anew; None where the worker is gone."""
        try:
            obj = await self._client.get(paths.workers(*key))
        except NotFoundError:
            known = self._knowledge.workers.get(key)
            if known is not None and self._knowledge.workers.forget(key, known.uid):
                self.forget(known)
            return None
        worker = self._knowledge.workers.take(obj)
        await self._read_pod(worker)
        pool = (worker.namespace, worker.spec.pool)
        try:
            self._knowledge.pools.observe(await self._client.get(paths.pools(*pool)), tell=False)
        except NotFoundError:
            self._knowledge.pools.forget(pool)
        return worker

    def forget(self, worker: WorkerView) -> None:
        """Drop all that is kept for a worker that is gone."""
        self._pingers.unwatch(worker.uid)
        self._knowledge.forget_worker(worker.uid)
        self._budget.forget(worker.uid)
        self._flipped.pop(worker.uid, None)
        self._gauged.pop(worker.uid, None)
        self._ask_pool((worker.namespace, worker.spec.pool))

    async def _carry_out(self, seen: Seen, plan: Plan) -> tuple[WorkerView, bool]:
        worker = seen.worker
        finalizers = [action for action in plan.actions if isinstance(action, plans.AddFinalizer)]
        for _ in finalizers:
            worker = await self._patch(
                worker, {"finalizers": [*worker.finalizers, names.WORKER_FINALIZER]}, status=None
            )
        progress = bool(finalizers)
        if plan.accept:
            worker, progress = await self._accept(worker), True
        worker, wrote = await self._write_status(worker, plan)
        progress = progress or wrote
        if plan.moves and worker.state is not plan.moves[-1].to:
            return worker, False  # load flips that the budget put off: their actions wait as well
        for action in plan.actions:
            worker, acted = await self._act(worker, seen, action)
            progress = progress or acted
        return worker, progress

    async def _accept(self, worker: WorkerView) -> WorkerView:
        reason, message = str(Reason.ACCEPTED), "accepted; waits for its reservation"
        now = self._client.clock.now()
        conditions = worker_conditions(
            WorkerState.SPAWNING,
            reason,
            message,
            charged=False,
            quota=None,
            pod=None,
            health=self._knowledge.see(worker).health_status,
            failed=False,
        )
        status = {
            "state": str(WorkerState.SPAWNING),
            "reason": reason,
            "message": message,
            "observedGeneration": worker.generation,
            "conditions": merged((), conditions, generation=worker.generation, now=now),
        }
        accepted = await self._patch(worker, {}, status=status)
        self._event(accepted, reason, "Accept", message)
        return accepted

    async def _write_status(self, worker: WorkerView, plan: Plan) -> tuple[WorkerView, bool]:
        """Write moves one by one, the other fields with the last of them; gauges go along, or wait for the budget."""
        wrote = False
        load_only = worker.state in FLIP_STATES and all(move.to in FLIP_STATES for move in plan.moves)
        # what a lifecycle move brings is written with it: a flip behind it may be put off or lost in a crash
        lasting = {name: value for name, value in plan.fields.items() if name in _LASTING}
        for number, move in enumerate(plan.moves, 1):
            flip = worker.state is not None and is_flip(worker.state, move.to)
            if load_only and (wait := self._wait_to_flip(worker)):
                self._again(worker.key, wait)
                return worker, wrote
            last = number == len(plan.moves)
            fields = {**plan.fields, **plan.gauges} if last else {} if flip else lasting
            worker = await self._write_move(worker, move, fields, flip=flip)
            wrote = True
        if plan.moves or not (plan.fields or plan.gauges):
            return worker, wrote
        now = self._monotonic()
        if plan.fields:
            worker = await self._patch(worker, {}, status={**plan.fields, **plan.gauges})
            self._gauged[worker.uid] = now
            return worker, True
        due = self._gauged.get(worker.uid, -_GAUGE_PAUSE) + _GAUGE_PAUSE
        if wait := max(0.0, due - now) or self._budget.take(worker.uid):
            self._again(worker.key, wait)
            return worker, wrote
        self._gauged[worker.uid] = now
        return await self._patch(worker, {}, status=plan.gauges), True

    def _wait_to_flip(self, worker: WorkerView) -> float:
        """Return 0 where a flip of the load may be written now, else the seconds to wait."""
        now = self._monotonic()
        wait = max(0.0, self._flipped.get(worker.uid, -_FLIP_PAUSE) + _FLIP_PAUSE - now) or self._budget.take(
            worker.uid
        )
        if not wait:
            self._flipped[worker.uid] = now
        return wait

    async def _write_move(self, worker: WorkerView, move: Move, fields: dict[str, Any], *, flip: bool) -> WorkerView:
        start = worker.state or WorkerState.SPAWNING
        status = {
            **fields,
            "state": str(move.to),
            "reason": move.reason,
            "message": move.message,
            "transitions": appended(worker.status.get("transitions") or (), start, move),
        }
        worker = await self._patch(worker, {}, status=status)
        self._metrics.moves.labels(str(start), str(move.to)).inc()
        pong = self._knowledge.pongs.get(worker.uid)
        restarted = start in FLIP_STATES and move.to is WorkerState.LOADING
        if restarted and pong is not None and pong.boot_id == worker.mirrored.boot_id:
            self._knowledge.pongs.pop(worker.uid)  # the last word of a process that is no more
        if move.to is WorkerState.IDLE:  # its room may be had now
            self._ask_pool((worker.namespace, worker.spec.pool))
        if flip:
            return worker
        _log.info("worker.moved", worker=worker.key, from_state=str(start), to_state=str(move.to), reason=move.reason)
        if move.to is WorkerState.READY and start is WorkerState.LOADING:
            total = (worker.status.get("coldStartSeconds") or {}).get("total")
            if total is not None and not worker.status.get("restarts"):
                self._metrics.cold_start_seconds.labels(str(worker.spec.model.capability)).observe(total)
        if move.to is WorkerState.DEAD:
            self._metrics.evicted.labels(move.reason).inc()
        bad = move.to is WorkerState.FAILED or move.reason in _BAD
        self._event(worker, move.reason, str(move.to), move.message, warning=bad)
        return worker

    async def _act(self, worker: WorkerView, seen: Seen, action: plans.Action) -> tuple[WorkerView, bool]:
        pool = (worker.namespace, worker.spec.pool)
        match action:
            case plans.AskPool():
                if seen.pool is not None:
                    self._ask_pool(pool)
                return worker, False
            case plans.LiftGate():
                await self._lift_gate(seen, action)
                return worker, True
            case plans.DeletePod():
                if seen.pod is not None:
                    await self._client.delete(
                        paths.pods(seen.pod.namespace, seen.pod.name), action.pod_uid, action.grace_seconds
                    )
                    _log.info("pod.deleted", pod=(seen.pod.namespace, seen.pod.name), grace=action.grace_seconds)
                await self._read_pod(worker)
                return worker, True
            case plans.AskEvict():
                agreed = await self._pingers.evict(worker, action)
                _log.info("evict.asked", worker=worker.key, reason=str(action.reason), agreed=agreed)
                self._knowledge.room_wanted.pop(worker.uid, None)
                if action.force and not agreed:
                    self._knowledge.deaf.add(worker.uid)
                return worker, agreed or action.force
            case plans.EnsureService():
                try:
                    return await self._ensure_service(worker)
                except (DeniedError, InvalidError) as error:  # a quota, a policy: the worker serves without it
                    _log.warning("service.refused", worker=worker.key, status=error.status)
                    self._again(worker.key, 30.0)
                    return worker, False
            case plans.RemoveFinalizer():
                kept = [name for name in worker.finalizers if name != names.WORKER_FINALIZER]
                return await self._patch(worker, {"finalizers": kept}, status=None), False
            case plans.AddFinalizer():
                return worker, False  # done first, before anything else is written

    async def _lift_gate(self, seen: Seen, action: plans.LiftGate) -> None:
        pod = seen.pod
        if pod is None:
            return
        now = format_time(self._client.clock.now())
        patch = {
            "metadata": {
                "uid": action.pod_uid,
                "resourceVersion": action.pod_resource_version,
                "annotations": {names.ANNOTATION_GATE_LIFTED: now},
            },
            "spec": {"schedulingGates": [{"name": gate} for gate in pod.other_gates] or None},
        }
        try:
            lifted = await self._client.patch(paths.pods(pod.namespace, pod.name), patch)
        except NotFoundError:
            self._knowledge.pods.forget((pod.namespace, pod.name), pod.uid)
            return
        except (ConflictError, InvalidError) as error:
            now_there = await self._read_pod(seen.worker)
            unchanged = now_there is not None and now_there.resource_version == pod.resource_version
            if isinstance(error, InvalidError) and unchanged:
                raise  # refused for what it is, not for what it was planned on
            return
        self._knowledge.pods.observe(lifted)

    async def _ensure_service(self, worker: WorkerView) -> tuple[WorkerView, bool]:
        try:
            made = await self._client.create(paths.services(worker.namespace), build_service(worker))
        except ConflictError:
            made = await self._client.get(paths.services(worker.namespace, worker.name))
        owners = made["metadata"].get("ownerReferences") or ()
        if any(owner["uid"] == worker.uid for owner in owners):
            self._knowledge.service_taken.discard(worker.uid)
            self._knowledge.service_made.add(worker.uid)
            return worker, True
        self._again(worker.key, 30.0)
        note = f"a Service {worker.name} that is not ours stands in the way; rename one, or set spec.service: false"
        if worker.uid not in self._knowledge.service_taken:
            self._knowledge.service_taken.add(worker.uid)
            self._event(worker, "ServiceNameTaken", "EnsureService", note, warning=True)
            return worker, True
        return worker, False

    async def _read_pod(self, worker: WorkerView) -> PodView | None:
        key = (worker.namespace, worker.pod_name)
        try:
            self._knowledge.pods.observe(await self._client.get(paths.pods(*key)))
        except NotFoundError:
            self._knowledge.pods.forget(key)
        return self._knowledge.pod_of(worker)

    async def _patch(
        self, worker: WorkerView, metadata: dict[str, Any], *, status: dict[str, Any] | None
    ) -> WorkerView:
        body: dict[str, Any] = {"metadata": {"resourceVersion": worker.resource_version, **metadata}}
        if status is None:
            body["metadata"]["uid"] = worker.uid
        else:
            body["status"] = status
        path = paths.workers(worker.namespace, worker.name, None if status is None else "status")
        obj = await self._client.patch(path, body)
        return self._knowledge.workers.take(obj)

    def _watch_process(self, worker: WorkerView) -> None:
        """Ping a worker while a process of its runs; stop when it has ended."""
        seen = self._knowledge.see(worker)
        pod, alive = seen.pod, worker.state in FLIP_STATES or worker.state in (WorkerState.LOADING, WorkerState.UNKNOWN)
        leaving = worker.state is WorkerState.EVICTING and seen.health.misses == 0 and seen.pong is not None
        running = pod is not None and pod.ip and pod.container is not None and pod.container.running
        if pod is not None and running and (alive or leaving):
            rules = seen.rules
            self._pingers.watch(
                Target(
                    worker.key,
                    worker.uid,
                    (worker.namespace, worker.spec.pool),
                    pod.ip,
                    rules.health_check,
                    rules.idle_timeout,
                    loading=worker.state is WorkerState.LOADING,
                )
            )
        else:
            self._pingers.unwatch(worker.uid)

    def _event(self, worker: WorkerView, reason: str, action: str, note: str, *, warning: bool = False) -> None:
        self._events.record(
            names.MODEL_WORKER,
            worker.key,
            worker.uid,
            reason=reason,
            action=action,
            note=note,
            warning=warning,
            now=self._client.clock.now(),
        )
