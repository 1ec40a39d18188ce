"""ModelPool: a budget of memory and accelerators, and the house rules of its workers."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import Field

from modelpool_operator.api.conditions import Condition
from modelpool_operator.api.names import API_VERSION, MODEL_POOL
from modelpool_operator.api.quantity import parse_mib_floor
from modelpool_operator.api.resource import (
    MAX_MEMORY_MIB,
    ApiModel,
    Deadline,
    Headroom,
    LabelMap,
    MemoryAndGpus,
    MemoryQuantity,
    ObjectMeta,
    ObjectName,
    Seconds,
    Toleration,
    Uid,
)


class StopPolicy(StrEnum):
    """Whether a pool works on, admits nothing new, or empties itself."""

    NONE = "None"
    HOLD = "Hold"
    HOLD_AND_DRAIN = "HoldAndDrain"


class HealthCheckSpec(ApiModel):
    """How workers are pinged and how many misses in a row mean that one is dead."""

    period_seconds: int = Field(default=10, ge=1, le=3600, description="seconds between two pings of a worker")
    timeout_seconds: int = Field(default=5, ge=1, le=300, description="seconds that one ping may take")
    failure_threshold: int = Field(default=3, ge=1, le=100, description="missed pings in a row that end a worker")


class ModelPoolSpec(ApiModel):
    """What the pool may hand out, where its pods may run, and the times that hold for its workers."""

    memory: MemoryQuantity = Field(
        description="memory that all workers together may reserve, for example 64Gi; accelerator memory where they "
        "have accelerators"
    )
    gpus: int = Field(default=0, ge=0, le=100_000, description="accelerators that all workers together may reserve")
    gpu_resource_name: str = Field(
        default="nvidia.com/gpu", max_length=253, description="resource that a node offers its accelerators under"
    )
    node_selector: LabelMap = Field(default_factory=dict, description="labels a node must have to run the pool's pods")
    tolerations: tuple[Toleration, ...] = Field(
        default=(), max_length=16, description="taints that the pool's pods tolerate"
    )
    runtime_class_name: ObjectName | None = Field(default=None, description="RuntimeClass of the pool's pods")
    priority_classes: Annotated[tuple[ObjectName, ...], Field(max_length=16)] = Field(
        default=(),
        description="PriorityClasses that workers may name in their template; none where empty",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    idle_timeout_seconds: Seconds = Field(default=300, description="a worker unused for so long becomes Idle")
    evict_after_seconds: Seconds = Field(
        default=600,
        description="a worker with eviction Auto that is unused for so long, counted from its last use, is evicted",
    )
    min_residency_seconds: Seconds = Field(
        default=60, description="a worker is not evicted, unused or not, before it has been Ready for so long"
    )
    load_deadline_seconds: Deadline = Field(
        default=1800, description="a worker that has been Loading for longer has failed"
    )
    schedule_deadline_seconds: Deadline = Field(
        default=1800,
        description="a worker that holds its reservation and has not started its container for so long has failed",
    )
    drain_timeout_seconds: int = Field(
        default=60, ge=0, le=86_400, description="seconds that an evicted worker has to finish its requests"
    )
    restart_limit: int = Field(
        default=3, ge=0, le=100, description="restarts of a worker's container that count; one more is a failure"
    )
    restart_window_seconds: Seconds = Field(
        default=600, description="restarts are forgotten after the worker has been Ready for so long"
    )
    health_check: HealthCheckSpec = Field(default=HealthCheckSpec(), description="how workers are pinged")
    failed_retention_seconds: Seconds = Field(default=300, description="a worker stays Failed for so long, then Dead")
    stop_policy: StopPolicy = Field(
        default=StopPolicy.NONE,
        description="None: work on. Hold: admit no new worker. HoldAndDrain: also evict those that run",
    )

    @property
    def memory_mib(self) -> int:
        """The budget in whole MiB, rounded down: a reservation beyond it is refused by the API server."""
        return parse_mib_floor(self.memory)


class LedgerEntry(ApiModel):
    """One worker's reservation; its key in the ledger is the worker's uid."""

    name: str = Field(max_length=63, description="name of the ModelWorker")
    pod_uid: Uid = Field(alias="podUID", description="uid of the pod that the reservation is for")
    memory_mib: int = Field(alias="memoryMiB", ge=0, le=MAX_MEMORY_MIB, description="reserved memory, MiB")
    gpus: int = Field(ge=0, le=100_000, description="reserved accelerators")
    since: datetime = Field(description="when the reservation was made")


class ModelPoolStatus(ApiModel):
    """The ledger, which is the truth of what is reserved, and what follows from it."""

    observed_generation: int | None = Field(
        default=None, ge=0, description="metadata.generation of the spec that this status was decided on"
    )
    reserved: MemoryAndGpus | None = Field(default=None, description="sum of the ledger, always")
    available: Headroom | None = Field(default=None, description="the budget less what is reserved")
    ledger: Annotated[dict[Uid, LedgerEntry], Field(max_length=1000)] = Field(
        default_factory=dict,
        description="reservations by uid of the worker",
        json_schema_extra={"x-kubernetes-map-type": "atomic"},
    )
    ledger_repairs: int = Field(
        default=0, ge=0, description="entries that a sweep had to correct; 0 unless something was lost"
    )
    workers: Annotated[dict[str, int], Field(max_length=16)] = Field(
        default_factory=dict, description="number of workers by state"
    )
    evicted: Annotated[dict[str, int], Field(max_length=64)] = Field(
        default_factory=dict, description="number of workers that have gone, by reason"
    )
    conditions: tuple[Condition, ...] = Field(
        default=(),
        max_length=16,
        description="the pool's state in the form that generic tools understand",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )


class ModelPool(ApiModel):
    """A budget of memory and accelerators for model workers, and the rules that hold for them."""

    api_version: str = API_VERSION
    kind: str = MODEL_POOL
    metadata: ObjectMeta
    spec: ModelPoolSpec = Field(description="the budget and the house rules")
    status: ModelPoolStatus = Field(default=ModelPoolStatus(), description="what is reserved; written by the operator")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read an object as the API server sends it; raises pydantic's ``ValidationError`` where it is none."""
        return cls.model_validate(data)
