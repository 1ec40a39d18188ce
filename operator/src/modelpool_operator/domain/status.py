"""The fields of ``ModelWorker.status`` beside the state, derived from what is seen. Only what differs is returned."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from modelpool_api import FLIP_STATES, HealthStatus, Pong, WorkerState
from modelpool_api.pod import INFERENCE_PORT
from modelpool_operator.api.names import Reason
from modelpool_operator.domain import conditions, failures
from modelpool_operator.domain.failures import Failure
from modelpool_operator.domain.objects import Entry, WorkerView
from modelpool_operator.domain.podview import PodView, format_time
from modelpool_operator.domain.transitions import Move

_S = WorkerState
#: ``lastUsedTime`` is computed from two clocks' readings; smaller differences are noise.
_LAST_USED_NOISE: Final = timedelta(seconds=2)


def status_fields(
    worker: WorkerView,
    *,
    pod: PodView | None,
    pong: Pong | None,
    entry: Entry | None,
    quota: tuple[Reason, str] | None,
    health: HealthStatus,
    service_taken: bool,
    service_made: bool,
    moves: Sequence[Move],
    failure: Failure | None,
    waiting: tuple[str, str] | None,
    mirrored: bool,
    extra: Mapping[str, object],
    now: datetime,
) -> dict[str, Any]:
    """Return the fields of status that have to change, for a merge patch, as they are after ``moves``."""
    state = moves[-1].to if moves else worker.state or _S.SPAWNING
    reason, message = _said(worker, moves, waiting)
    wanted: dict[str, Any] = {"observedGeneration": worker.generation, "reason": reason, "message": message, **extra}
    if pod is not None:
        wanted |= _of_pod(worker, pod, entry)
    if pong is not None and state in FLIP_STATES | {_S.LOADING, _S.EVICTING}:
        wanted["device"] = pong.device
        if mirrored and moves:
            wanted["mirrored"] = {"bootID": pong.boot_id, "seq": pong.seq}
    loaded = _loaded(worker, moves)
    if loaded is not None:
        wanted["readyTime"] = format_time(loaded.at)
        if not worker.status.get("readyTime"):  # a restart's reload is not the cold start
            wanted["coldStartSeconds"] = _cold_start(worker, pod, pong, now)
    if failure is not None:
        wanted["lastFailure"] = failures.last_failure(failure, now)
    charged = entry is not None
    failed = state is _S.FAILED or (state is _S.DEAD and _has_failed(worker))
    wanted["conditions"] = conditions.merged(
        worker.status.get("conditions") or (),
        conditions.worker_conditions(
            state,
            reason,
            message,
            charged=charged,
            quota=quota,
            pod=pod,
            health=health,
            failed=failed,
            service_taken=service_taken,
            shown=worker.status.get("conditions") or (),
        ),
        generation=worker.generation,
        now=now,
    )
    found = _differing(worker.status, wanted)
    # nobody uses the address before the container runs: until then it goes along with what is written anyway
    if service_made and not worker.status.get("endpoint") and (found or state is not _S.SPAWNING):
        found["endpoint"] = endpoint(worker)
    return found


def status_gauges(worker: WorkerView, pong: Pong | None, now: datetime) -> dict[str, Any]:
    """Return the load figures that have to change: worth a write only when the budget allows one."""
    if pong is None:
        if worker.state in (_S.EVICTING, _S.FAILED, _S.DEAD):
            return _differing(worker.status, {"pendingRequests": 0, "queueDepth": 0})
        return {}
    wanted: dict[str, Any] = {"pendingRequests": pong.pending_requests, "queueDepth": pong.queue_depth}
    if pong.unused_for is not None and not pong.pending_requests:
        used = now - timedelta(seconds=pong.unused_for)
        shown = worker.time("lastUsedTime")
        if shown is None or abs(used - shown) > _LAST_USED_NOISE:
            wanted["lastUsedTime"] = used.isoformat(timespec="seconds").replace("+00:00", "Z")
    if pong.memory is not None:
        declared = worker.need.memory_mib
        shown_mib = int((worker.status.get("memoryMiB") or {}).get("measured") or 0)
        if abs(shown_mib - pong.memory.measured_mib) > max(16, shown_mib // 20):
            wanted["memoryMiB"] = {"declared": declared, "measured": pong.memory.measured_mib}
    return _differing(worker.status, wanted)


def endpoint(worker: WorkerView) -> str:
    """Return the address of the worker's own Service."""
    return f"http://{worker.name}.{worker.namespace}:{INFERENCE_PORT}"


def _loaded(worker: WorkerView, moves: Sequence[Move]) -> Move | None:
    """Return the move from Loading to Ready, where there is one."""
    before = worker.state
    for move in moves:
        if before is _S.LOADING and move.to is _S.READY:
            return move
        before = move.to
    return None


def _said(worker: WorkerView, moves: Sequence[Move], waiting: tuple[str, str] | None) -> tuple[str, str]:
    if moves:
        return moves[-1].reason, moves[-1].message
    if waiting is not None:
        return str(waiting[0]), waiting[1]
    return str(worker.status.get("reason") or ""), str(worker.status.get("message") or "")


def _of_pod(worker: WorkerView, pod: PodView, entry: Entry | None) -> dict[str, Any]:
    found: dict[str, Any] = {"podName": pod.name}
    if entry is not None and entry.pod_uid == pod.uid:
        # from here on a pod has been charged for this worker: it gets no second one
        found["podUID"] = pod.uid
    if pod.node:
        found["nodeName"] = pod.node
    if pod.container is not None and not pod.deleting:  # the end of a pod that has to go is no restart
        found["restarts"] = max(pod.container.failures, int(worker.status.get("restarts") or 0))
    if not worker.spec.service and pod.ip:
        found["endpoint"] = f"http://{pod.ip}:{INFERENCE_PORT}"
    if not worker.status.get("memoryMiB"):
        found["memoryMiB"] = {"declared": worker.need.memory_mib, "measured": 0}
    return found


def _cold_start(worker: WorkerView, pod: PodView | None, pong: Pong | None, now: datetime) -> dict[str, float]:
    """Return seconds per phase: those the operator can see, and those the worker measured itself."""
    phases = {name: round(seconds, 3) for name, seconds in (pong.phases if pong else {}).items()}
    if worker.created is not None:
        phases["total"] = round((now - worker.created).total_seconds(), 3)
        if pod is not None and pod.gate_lifted is not None:
            phases["quota"] = max(0.0, round((pod.gate_lifted - worker.created).total_seconds(), 3))
            if pod.container is not None and pod.container.started is not None:
                phases["start"] = max(0.0, round((pod.container.started - pod.gate_lifted).total_seconds(), 3))
    return dict(list(phases.items())[:16])


def _has_failed(worker: WorkerView) -> bool:
    return worker.state is _S.FAILED or any(
        entry["to"] == _S.FAILED for entry in worker.status.get("transitions") or ()
    )


def _differing(status: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in wanted.items() if status.get(name) != value}
