"""What a Model's status says: sizes, failures in a row, the last cold start, and conditions as generic tools know them.

``Ready`` is always there: a Model without workers is Ready where none is wanted, since it can be called.
``Reconciling`` and ``Stalled`` are there only while they are true.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from modelpool_api import FLIP_STATES, WorkerState
from modelpool_operator.api import names
from modelpool_operator.api.names import Reason
from modelpool_operator.domain.conditions import Condition, merged
from modelpool_operator.domain.objects import ModelView, WorkerView
from modelpool_operator.domain.podview import format_time, parse_time
from modelpool_operator.domain.scaling import BackOff, Failed, Member, ScalePlan

#: The time of what has none.
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: Why a worker waits that will never get what it asks for as things are.
_IN_VAIN = (Reason.EXCEEDS_POOL, Reason.CONFIG, Reason.POOL_NOT_FOUND)


def status_of(
    model: ModelView,
    workers: Sequence[WorkerView],
    members: Sequence[Member],
    plan: ScalePlan,
    back_off: BackOff | None,
    *,
    template: str,
    keep_alive: int | None,
    now: datetime,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields that differ from what status shows: those to write now, and those that may wait.

    What changes with every request may wait: how many workers the load wants, and why a condition stays as it is.
    """
    here = [member for member in members if member.here]
    conditions = model_conditions(workers, here, plan, back_off, template=template, now=now)
    wanted: dict[str, Any] = {
        "observedGeneration": model.generation,
        "desiredReplicas": plan.desired,
        "replicas": len(here),
        "selector": f"{names.LABEL_MODEL}={model.name}",
        "template": template,
        "keepAliveSeconds": keep_alive,
        "backOff": back_off_status(back_off) if back_off else None,
        "conditions": merged(model.status.get("conditions") or (), conditions, generation=model.generation, now=now),
    }
    if cold := _cold_start(workers):
        wanted["coldStartSeconds"] = cold
    fields = _differing(wanted, model.status)
    gauges = _counts(Counter(str(member.state) for member in members), model.status)
    if "desiredReplicas" in fields:
        gauges["desiredReplicas"] = fields.pop("desiredReplicas")
    if "conditions" in fields and _standing(wanted["conditions"]) == _standing(model.status.get("conditions") or ()):
        gauges["conditions"] = fields.pop("conditions")
    return fields, gauges


def model_conditions(
    workers: Sequence[WorkerView],
    here: Sequence[Member],
    plan: ScalePlan,
    back_off: BackOff | None,
    *,
    template: str,
    now: datetime,
) -> list[Condition]:
    """Return the conditions; ``here`` are the members that serve or will."""
    serving = sum(member.state in FLIP_STATES for member in here)
    old = sum(member.template != template for member in here)
    stuck = _stuck(workers)
    failing = back_off if back_off is not None and back_off.holds(now) else None
    never = (failing is not None and failing.permanent) or stuck is not None
    if serving >= plan.desired and not never:
        why = (
            ("WorkersReady", f"{serving} serve")
            if serving
            else ("ScaledToZero", "no worker is wanted; a request makes one")
        )
        found = [Condition("Ready", True, *why)]
    else:
        why = _why(workers, here, failing, stuck)
        found = [Condition("Ready", False, *why)]
    if never and failing is not None:
        found.append(Condition("Stalled", True, failing.last.reason, failing.last.message))
    elif stuck is not None:
        found.append(Condition("Stalled", True, *stuck))
    elif serving < plan.desired:
        found.append(Condition("Reconciling", True, found[0].reason, found[0].message))
    elif old:
        found.append(Condition("Reconciling", True, "Replacing", f"{old} workers of an older template are replaced"))
    return found


def ends_of(workers: Iterable[WorkerView]) -> Iterator[Failed]:
    """Find the workers that have failed, also those that are Dead since: when, and why."""
    for worker in workers:
        for entry in worker.status.get("transitions") or ():
            if entry["to"] == WorkerState.FAILED:
                at = parse_time(entry["time"]) or EPOCH
                reason = str(worker.status.get("reason") or entry["reason"])
                message = str(worker.status.get("message") or entry.get("message") or "")
                yield Failed(worker.uid, worker.template, reason, message, at)


def back_off_status(back_off: BackOff) -> dict[str, Any]:
    """Return ``status.backOff``."""
    found: dict[str, Any] = {
        "failures": back_off.failures,
        "workerUID": back_off.last.uid,
        "template": back_off.last.template,
        "reason": back_off.last.reason,
        "message": back_off.last.message[:1024],
        "failedTime": format_time(back_off.last.at),
    }
    if back_off.retry_at is not None:
        found["retryTime"] = format_time(back_off.retry_at)
    return found


def read_back_off(shown: Mapping[str, Any] | None) -> BackOff | None:
    """Read ``status.backOff``."""
    if not shown:
        return None
    at = parse_time(shown.get("failedTime")) or EPOCH
    last = Failed(shown["workerUID"], shown["template"], shown["reason"], shown.get("message") or "", at)
    return BackOff(int(shown["failures"]), last)


def _stuck(workers: Iterable[WorkerView]) -> tuple[str, str] | None:
    """Return why a worker waits in vain, where one does and none serves."""
    found = None
    for worker in workers:
        if worker.state in FLIP_STATES:
            return None
        reason = worker.status.get("reason")
        if worker.state is WorkerState.SPAWNING and reason in _IN_VAIN and not worker.deleting:
            found = str(reason), str(worker.status.get("message") or "")
    return found


def _why(
    workers: Sequence[WorkerView],
    here: Sequence[Member],
    failing: BackOff | None,
    stuck: tuple[str, str] | None,
) -> tuple[str, str]:
    if failing is not None:
        again = failing.retry_at
        said = f"another worker is made at {format_time(again)}" if again else "none is made before the spec changes"
        return failing.last.reason, f"a worker has failed: {failing.last.message}; {said}"
    if stuck is not None:
        return stuck
    coming = {member.uid for member in here if member.state not in FLIP_STATES}
    for worker in sorted(workers, key=lambda each: each.state is not WorkerState.LOADING):
        if worker.uid in coming:
            state = worker.state or WorkerState.SPAWNING
            return str(worker.status.get("reason") or state), str(
                worker.status.get("message") or f"{worker.name} is new"
            )
    return "WorkersMissing", "workers are being made"


def _cold_start(workers: Iterable[WorkerView]) -> Mapping[str, Any] | None:
    """Return the phases of the latest cold start; a start after a crash is none."""
    ready = [
        (moment, worker.name, worker.status["coldStartSeconds"])
        for worker in workers
        if (moment := worker.time("readyTime")) is not None
        and worker.status.get("coldStartSeconds")
        and not worker.status.get("restarts")
    ]
    return max(ready)[2] if ready else None


def _differing(wanted: Mapping[str, Any], shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return the merge patch that makes ``shown`` what is wanted of it."""
    return {
        name: _merge(value, shown.get(name)) if isinstance(value, Mapping) else value
        for name, value in wanted.items()
        if shown.get(name) != value
    }


def _merge(wanted: Mapping[str, Any], shown: Mapping[str, Any] | None) -> dict[str, Any]:
    return {**dict.fromkeys((shown or {}).keys() - wanted.keys()), **wanted}


def _standing(conditions: Iterable[Mapping[str, Any]]) -> set[tuple[str, str, bool]]:
    """Return what of the conditions is told at once; why something is not so is, why it is well may wait."""
    return {(each["type"], each["status"], each["status"] == "True" or each["reason"]) for each in conditions}


def _counts(counts: Mapping[str, int], shown: Mapping[str, Any]) -> dict[str, Any]:
    before = shown.get("replicasByState") or {}
    return {} if dict(counts) == dict(before) else {"replicasByState": _merge(dict(sorted(counts.items())), before)}
