"""ModelWorker, ModelPool and Model as decisions see them: identity, parsed spec, status as it was read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from modelpool_api import TERMINAL_STATES, WorkerState, parse_state
from modelpool_operator.api import names
from modelpool_operator.api.model import ModelSpec
from modelpool_operator.api.modelpool import ModelPoolSpec
from modelpool_operator.api.modelworker import ModelWorkerSpec
from modelpool_operator.domain.mirror import Mirrored
from modelpool_operator.domain.podview import parse_time

Status = Mapping[str, Any]
_API: Final = names.API_VERSION


@dataclass(frozen=True, slots=True, order=True)
class Amount:
    """An amount of what a pool has: accelerator (or plain) memory in MiB, and devices."""

    memory_mib: int = 0
    gpus: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.memory_mib + other.memory_mib, self.gpus + other.gpus)

    def __sub__(self, other: "Amount") -> "Amount":
        return Amount(self.memory_mib - other.memory_mib, self.gpus - other.gpus)

    def fits(self, room: "Amount") -> bool:
        """Whether this much fits into ``room`` in every dimension."""
        return self.memory_mib <= room.memory_mib and self.gpus <= room.gpus

    def beyond(self, room: "Amount") -> "Amount":
        """Return what is missing in each dimension, 0 where enough is there."""
        return Amount(max(0, self.memory_mib - room.memory_mib), max(0, self.gpus - room.gpus))

    def __str__(self) -> str:
        parts = [f"{self.memory_mib} MiB"] if self.memory_mib or not self.gpus else []
        parts += [f"{self.gpus} GPU{'' if self.gpus == 1 else 's'}"] if self.gpus else []
        return " and ".join(parts)


NOTHING: Final = Amount()


@dataclass(frozen=True, slots=True)
class Entry:
    """One reservation in a pool's ledger."""

    uid: str
    name: str
    pod_uid: str
    amount: Amount
    since: str

    @property
    def pod_name(self) -> str:
        """Name of the pod that the reservation is for."""
        return _pod_name(self.name, self.uid)


@dataclass(frozen=True, slots=True)
class Owner:
    """The Model that a worker belongs to."""

    name: str
    uid: str


@dataclass(frozen=True)
class WorkerView:
    """A ModelWorker as it was read."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    generation: int
    created: datetime | None
    deleting: bool
    finalizers: tuple[str, ...]
    spec: ModelWorkerSpec
    status: Status
    #: None for a worker that somebody has made by hand
    model: Owner | None = None
    #: hash of the template that its Model has made it from
    template: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.namespace, self.name

    @property
    def state(self) -> WorkerState | None:
        """The state that status shows; None before the operator has accepted the worker."""
        text = self.status.get("state")
        return parse_state(text) if text else None

    @property
    def need(self) -> Amount:
        """What the worker reserves of its pool."""
        return Amount(self.spec.memory_mib, self.spec.gpus)

    @property
    def pod_name(self) -> str:
        """The one name its pod can have."""
        return _pod_name(self.name, self.uid)

    @property
    def had_pod(self) -> bool:
        """Whether a pod has ever been charged for it: such a worker gets no second one."""
        return bool(self.status.get("podUID"))

    @property
    def ended(self) -> bool:
        """Whether nothing will ever happen to it again."""
        return self.state in TERMINAL_STATES

    @property
    def mirrored(self) -> Mirrored:
        """Which of the worker process's moves status shows."""
        shown = self.status.get("mirrored") or {}
        return Mirrored(shown.get("bootID", ""), int(shown.get("seq", -1)))

    def time(self, field: str) -> datetime | None:
        """Return a time of the status."""
        return parse_time(self.status.get(field))

    @property
    def since(self) -> datetime | None:
        """When it entered its present state; its creation where it has not moved yet."""
        chain = self.status.get("transitions") or ()
        return parse_time(chain[-1]["time"]) if chain else self.created


@dataclass(frozen=True)
class PoolView:
    """A ModelPool as it was read."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    generation: int
    deleting: bool
    finalizers: tuple[str, ...]
    spec: ModelPoolSpec
    status: Status

    # computed once: a view never changes, and a ledger of a thousand entries is asked for at every decision
    @cached_property
    def budget(self) -> Amount:
        """All that may be reserved."""
        return Amount(self.spec.memory_mib, self.spec.gpus)

    @cached_property
    def ledger(self) -> dict[str, Entry]:
        """The reservations by worker uid."""
        return {
            uid: Entry(
                uid, item["name"], item["podUID"], Amount(int(item["memoryMiB"]), int(item["gpus"])), item["since"]
            )
            for uid, item in (self.status.get("ledger") or {}).items()
        }

    @cached_property
    def reserved(self) -> Amount:
        """The sum of the ledger."""
        return sum_amounts(entry.amount for entry in self.ledger.values())

    @property
    def draining(self) -> bool:
        """Whether its workers have to go."""
        return self.deleting or self.spec.stop_policy == "HoldAndDrain"

    @property
    def admits(self) -> bool:
        """Whether new reservations are made."""
        return not self.deleting and self.spec.stop_policy == "None"


@dataclass(frozen=True)
class ModelView:
    """A Model as it was read."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    generation: int
    deleting: bool
    spec: ModelSpec
    status: Status
    #: when an uninstall has last said that no worker is to be made
    drained: datetime | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.namespace, self.name

    @property
    def keep_alive(self) -> int | None:
        """Seconds that its workers stay after their last use, as a request has asked; -1: as long as may be."""
        value = self.status.get("keepAliveSeconds")
        return None if value is None else int(value)


def sum_amounts(amounts: Iterable[Amount]) -> Amount:
    """Add up amounts."""
    result = Amount()
    for amount in amounts:
        result += amount
    return result


def _pod_name(name: str, uid: str) -> str:
    """Return the one name that a worker's pod can have: names may be reused, uids are not."""
    return f"{name}-{uid[:5]}"


def worker_view(obj: Mapping[str, Any]) -> WorkerView:
    """Read a ModelWorker; raises pydantic's ValidationError for one that the CRD would refuse."""
    meta = obj["metadata"]
    return WorkerView(
        **_common(obj),
        created=parse_time(meta.get("creationTimestamp")),
        finalizers=tuple(meta.get("finalizers") or ()),
        spec=ModelWorkerSpec.model_validate(obj["spec"]),
        model=_owner(meta),
        template=(meta.get("labels") or {}).get(names.LABEL_TEMPLATE, ""),
    )


def model_view(obj: Mapping[str, Any]) -> ModelView:
    """Read a Model; raises pydantic's ValidationError for one that the CRD would refuse."""
    annotations = obj["metadata"].get("annotations") or {}
    return ModelView(
        **_common(obj),
        spec=ModelSpec.model_validate(obj["spec"]),
        drained=_time_or_none(annotations.get(names.ANNOTATION_DRAINED)),
    )


def pool_view(obj: Mapping[str, Any]) -> PoolView:
    """Read a ModelPool; raises pydantic's ValidationError for one that the CRD would refuse."""
    return PoolView(
        **_common(obj),
        finalizers=tuple(obj["metadata"].get("finalizers") or ()),
        spec=ModelPoolSpec.model_validate(obj["spec"]),
    )


def _common(obj: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that every view has."""
    meta = obj["metadata"]
    return {
        "namespace": meta["namespace"],
        "name": meta["name"],
        "uid": meta["uid"],
        "resource_version": meta["resourceVersion"],
        "generation": int(meta.get("generation") or 0),
        "deleting": meta.get("deletionTimestamp") is not None,
        "status": obj.get("status") or {},
    }


def _owner(meta: Mapping[str, Any]) -> Owner | None:
    for reference in meta.get("ownerReferences") or ():
        if reference.get("controller") and reference["kind"] == names.MODEL and reference["apiVersion"] == _API:
            return Owner(reference["name"], reference["uid"])
    return None


def _time_or_none(text: str | None) -> datetime | None:
    try:
        return parse_time(text)
    except ValueError:
        return None  # somebody's hand, not ours
