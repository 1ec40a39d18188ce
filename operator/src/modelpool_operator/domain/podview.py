"""What the operator needs to know of a pod, read once from the API object into plain values."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from modelpool_api.pod import EXIT_EVICTED
from modelpool_operator.api import names


@dataclass(frozen=True, slots=True)
class Termination:
    """How the container last ended."""

    exit_code: int
    reason: str
    message: str
    finished: datetime | None


@dataclass(frozen=True, slots=True)
class Container:
    """The worker container's state as the kubelet reports it."""

    running: bool
    started: datetime | None
    restarts: int
    waiting_reason: str
    waiting_message: str
    last: Termination | None

    @property
    def ever_ran(self) -> bool:
        """Whether a process of ours has ever been started in it."""
        return self.running or self.last is not None or self.restarts > 0

    @property
    def failures(self) -> int:
        """How many of its processes have died: 4 when ``restartCount`` is 3 and the fourth one has died too.

        One that ended with 0 did as it was told, and the kubelet starts no other.
        """
        died = not self.running and self.last is not None and self.last.exit_code != EXIT_EVICTED
        return self.restarts + died


@dataclass(frozen=True, slots=True)
class PodView:
    """A worker's pod."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    owner_uid: str
    phase: str
    reason: str
    message: str
    gated: bool
    other_gates: tuple[str, ...]
    gate_lifted: datetime | None
    scheduled: bool
    scheduling_reason: str
    scheduling_message: str
    ready: bool
    deleting: bool
    disruption: str
    node: str
    ip: str
    container: Container | None
    init_failure: str

    @property
    def finished(self) -> bool:
        """Whether the kubelet will never run it again."""
        return self.phase in ("Succeeded", "Failed")


def parse_time(text: str | None) -> datetime | None:
    """Read an RFC 3339 time of the API; None for none."""
    if not text:
        return None
    return datetime.fromisoformat(text)


def format_time(moment: datetime) -> str:
    """Write a time as the API does: UTC, whole seconds where there is no more, microseconds otherwise."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def pod_view(pod: Mapping[str, Any]) -> PodView:
    """Read a Pod object (a dictionary as the API server sends it)."""
    meta, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    scheduled = conditions.get("PodScheduled") or {}
    gates = [gate.get("name", "") for gate in spec.get("schedulingGates") or ()]
    owner = next((ref["uid"] for ref in meta.get("ownerReferences") or () if ref.get("controller")), "")
    return PodView(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        resource_version=meta["resourceVersion"],
        owner_uid=owner,
        phase=status.get("phase") or "Pending",
        reason=status.get("reason") or "",
        message=status.get("message") or "",
        gated=names.QUOTA_GATE in gates,
        other_gates=tuple(gate for gate in gates if gate != names.QUOTA_GATE),
        gate_lifted=_annotated_time((meta.get("annotations") or {}).get(names.ANNOTATION_GATE_LIFTED)),
        scheduled=scheduled.get("status") == "True" or bool(spec.get("nodeName")),
        scheduling_reason=scheduled.get("reason") or "",
        scheduling_message=scheduled.get("message") or "",
        ready=(conditions.get("Ready") or {}).get("status") == "True",
        deleting=meta.get("deletionTimestamp") is not None,
        disruption=(conditions.get("DisruptionTarget") or {}).get("reason") or "",
        node=spec.get("nodeName") or "",
        ip=status.get("podIP") or "",
        container=_container(status),
        init_failure=_init_failure(status),
    )


def _annotated_time(text: str | None) -> datetime | None:
    """Read a time that anybody may have overwritten; None for what is no time with a time zone."""
    try:
        moment = parse_time(text)
    except ValueError:
        return None
    return moment if moment is not None and moment.tzinfo is not None else None


def _container(status: Mapping[str, Any]) -> Container | None:
    for entry in status.get("containerStatuses") or ():
        if entry.get("name") != names.WORKER_CONTAINER:
            continue
        state = entry.get("state") or {}
        waiting = state.get("waiting") or {}
        running = state.get("running")
        ended = state.get("terminated") or (entry.get("lastState") or {}).get("terminated")
        return Container(
            running=running is not None,
            started=parse_time((running or {}).get("startedAt")),
            restarts=int(entry.get("restartCount") or 0),
            waiting_reason=waiting.get("reason") or "",
            waiting_message=waiting.get("message") or "",
            last=_termination(ended) if ended else None,
        )
    return None


def _termination(ended: Mapping[str, Any]) -> Termination:
    return Termination(
        exit_code=int(ended.get("exitCode") or 0),
        reason=ended.get("reason") or "",
        message=(ended.get("message") or "").strip(),
        finished=parse_time(ended.get("finishedAt")),
    )


def _init_failure(status: Mapping[str, Any]) -> str:
    """Return what keeps an init container from completing, for people; "" where nothing does."""
    for entry in status.get("initContainerStatuses") or ():
        waiting = (entry.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "PodInitializing"):
            return f"init container {entry.get('name')}: {waiting['reason']}"
    return ""
