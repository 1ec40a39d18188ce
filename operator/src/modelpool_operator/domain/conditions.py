"""Conditions of a ModelWorker, derived from what is known; after kstatus, so that generic tools understand them.

``Ready`` is always there. ``Reconciling`` and ``Stalled`` are there only while they are true.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from modelpool_api import FLIP_STATES, HealthStatus, WorkerState
from modelpool_operator.api.names import Reason
from modelpool_operator.domain.podview import PodView, format_time

_S = WorkerState


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition as decided now; None for ``true`` means unknown."""

    type: str
    true: bool | None
    reason: str
    message: str = ""


def worker_conditions(
    state: WorkerState,
    reason: str,
    message: str,
    *,
    charged: bool,
    quota: tuple[Reason, str] | None,
    pod: PodView | None,
    health: HealthStatus,
    failed: bool,
    service_taken: bool = False,
    shown: Iterable[Mapping[str, Any]] = (),
) -> list[Condition]:
    """Return the conditions; ``quota`` is why there is no reservation, ``failed`` whether the worker ever failed.

    ``shown`` are those that status has: what was found out about its health holds until this operator knows better.
    """
    serving = state in FLIP_STATES
    found = [Condition("Ready", serving, reason or str(state), message)]
    never = quota is not None and quota[0] in (Reason.EXCEEDS_POOL, Reason.CONFIG)
    if failed or (state is _S.SPAWNING and never):
        why = (str(quota[0]), quota[1]) if quota and never and not failed else (reason, message)
        found.append(Condition("Stalled", True, *why))
    elif state in (_S.SPAWNING, _S.LOADING, _S.EVICTING):
        found.append(Condition("Reconciling", True, reason or str(state), message))
    found.append(_quota(state, charged, quota))
    found.append(_scheduled(pod, state))
    found.append(Condition("ModelLoaded", serving, "ModelLoaded" if serving else str(state)))
    if serving:
        found.append(_healthy(health if health is not HealthStatus.UNKNOWN else _shown_health(shown)))
    else:
        found.append(Condition("Healthy", False, str(state), "the worker does not serve"))
    if service_taken:  # there only while it is so
        taken = "a Service of the worker's name that is not ours stands in the way; rename one, or set service: false"
        found.append(Condition("ServiceReady", False, "ServiceNameTaken", taken))
    return found


def _healthy(health: HealthStatus) -> Condition:
    true = {HealthStatus.HEALTHY: True, HealthStatus.SUSPECT: True, HealthStatus.UNHEALTHY: False}.get(health)
    return Condition("Healthy", true, str(health))


def _shown_health(shown: Iterable[Mapping[str, Any]]) -> HealthStatus:
    for condition in shown:
        if condition["type"] == "Healthy" and condition["reason"] in list(HealthStatus):
            return HealthStatus(condition["reason"])
    return HealthStatus.UNKNOWN


def _quota(state: WorkerState, charged: bool, quota: tuple[Reason, str] | None) -> Condition:
    if charged:
        return Condition("QuotaReserved", True, str(Reason.QUOTA_RESERVED), "the pool's ledger holds the reservation")
    if quota is not None:
        return Condition("QuotaReserved", False, str(quota[0]), quota[1])
    if state is _S.SPAWNING:
        return Condition("QuotaReserved", False, str(Reason.WAITING_FOR_QUOTA), "the pool has not decided yet")
    return Condition("QuotaReserved", False, "Released", "nothing is reserved any more")


def _scheduled(pod: PodView | None, state: WorkerState) -> Condition:
    if pod is None:
        return Condition(
            "PodScheduled", False, "NoPod", "there is no pod" if state is not _S.SPAWNING else "no pod yet"
        )
    if pod.scheduled:
        return Condition("PodScheduled", True, "Scheduled", f"on node {pod.node}")
    return Condition("PodScheduled", False, pod.scheduling_reason or "Pending", pod.scheduling_message)


def merged(
    old: Sequence[Mapping[str, Any]], new: Iterable[Condition], *, generation: int, now: datetime
) -> list[dict[str, Any]]:
    """Return the list to write: a condition keeps its ``lastTransitionTime`` while its status stays the same."""
    before = {condition["type"]: condition for condition in old}
    result = []
    for condition in new:
        status = "Unknown" if condition.true is None else str(condition.true)
        known = before.get(condition.type)
        since = known["lastTransitionTime"] if known and known["status"] == status else format_time(now)
        result.append(
            {
                "type": condition.type,
                "status": status,
                "reason": condition.reason,
                "message": condition.message[:1024],
                "lastTransitionTime": since,
                "observedGeneration": generation,
            }
        )
    return result
