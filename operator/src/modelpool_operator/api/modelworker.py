"""ModelWorker: one worker pod that serves one model with one capability, from its birth to its end."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from modelpool_api import Capability
from modelpool_operator.api.names import API_VERSION, MODEL_WORKER
from modelpool_operator.api.quantity import parse_mib
from modelpool_operator.api.resource import (
    ApiModel,
    Deadline,
    LabelMap,
    LabelText,
    MemoryQuantity,
    ObjectMeta,
    ObjectName,
    Quantity,
    Seconds,
    Toleration,
)
from modelpool_operator.api.workerstatus import (
    LastFailure,
    MeasuredMemory,
    MirroredMove,
    ModelWorkerStatus,
    Transition,
)

__all__ = [
    "ContainerResources",
    "EnvVar",
    "Eviction",
    "LastFailure",
    "MeasuredMemory",
    "MirroredMove",
    "ModelWorker",
    "ModelWorkerSpec",
    "ModelWorkerStatus",
    "SecretName",
    "ServedModel",
    "TokenSecretRef",
    "Transition",
    "WorkerSpec",
    "WorkerTemplate",
]


class Eviction(StrEnum):
    """Whether a worker may be evicted when it is unused or its room is needed."""

    AUTO = "Auto"
    NEVER = "Never"


class TokenSecretRef(ApiModel):
    """A key of a Secret in the worker's namespace."""

    name: str = Field(min_length=1, max_length=253, description="name of the Secret")
    key: str = Field(default="HF_TOKEN", min_length=1, max_length=253, description="key in the Secret")


class ServedModel(ApiModel):
    """Which model a worker serves, what as, and where it comes from."""

    name: str = Field(min_length=1, max_length=96, description="name the model answers to in requests")
    capability: Capability = Field(description="kind of work the model does")
    source: str = Field(
        min_length=1,
        max_length=512,
        description="where the model's files are: hf://org/name[@rev], pvc://claim/path, file:///path or oci://image",
    )
    revision: str | None = Field(
        default=None, max_length=128, description="commit, tag or branch of an hf:// source; default: main"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="number format of the weights; auto: the model's own, float32 without accelerator"
    )
    token_secret_ref: TokenSecretRef | None = Field(
        default=None, description="Secret with the token for an hf:// source that needs one"
    )
    cache_claim: str | None = Field(
        default=None,
        min_length=1,
        max_length=253,
        description="PersistentVolumeClaim that keeps what an hf:// source downloads, for later workers too; default: "
        "a volume that goes with the pod",
    )


class ContainerResources(ApiModel):
    """Compute resources of the worker's container; accelerators are asked for by spec.gpus."""

    requests: Annotated[dict[str, Quantity], Field(max_length=3)] = Field(
        default_factory=dict, description="what the node sets aside: cpu, memory, ephemeral-storage"
    )
    limits: Annotated[dict[str, Quantity], Field(max_length=3)] = Field(
        default_factory=dict, description="what the container may not exceed: cpu, memory, ephemeral-storage"
    )


class EnvVar(ApiModel):
    """One environment variable of the worker's container."""

    name: str = Field(min_length=1, max_length=63, description="name of the variable")
    value: str = Field(default="", max_length=1024, description="its value")


class SecretName(ApiModel):
    """A Secret in the worker's namespace."""

    name: str = Field(min_length=1, max_length=253, description="name of the Secret")


class WorkerTemplate(ApiModel):
    """The few fields of the worker's pod that are the user's to set."""

    resources: ContainerResources | None = Field(
        default=None, description="requests and limits of the container; default: from spec.memory without accelerators"
    )
    env: tuple[EnvVar, ...] = Field(
        default=(),
        max_length=32,
        description="environment variables; none that change how the process loads code or where it connects",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    node_selector: LabelMap = Field(default_factory=dict, description="labels a node must have, beside the pool's")
    tolerations: tuple[Toleration, ...] = Field(
        default=(), max_length=16, description="taints the pod tolerates; each must be one that the pool tolerates"
    )
    priority_class_name: ObjectName | None = Field(
        default=None, description="PriorityClass of the pod; one of the pool's priorityClasses"
    )
    image_pull_secrets: tuple[SecretName, ...] = Field(
        default=(),
        max_length=8,
        description="Secrets for pulling the worker's image",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    labels: LabelMap = Field(default_factory=dict, description="labels of the pod, outside reserved domains")
    annotations: Annotated[dict[str, Annotated[str, Field(max_length=1024)]], Field(max_length=16)] = Field(
        default_factory=dict, description="annotations of the pod, outside reserved domains"
    )


class WorkerSpec(ApiModel):
    """What a worker serves and may use: the part of its spec that a Model says for its workers as well."""

    pool: LabelText = Field(min_length=1, description="ModelPool in the same namespace that the worker belongs to")
    model: ServedModel = Field(description="the model to serve")
    memory: MemoryQuantity = Field(
        description="memory reserved in the pool, for example 8Gi: of the accelerator where gpus is above 0, else the "
        "container's"
    )
    gpus: int = Field(default=0, ge=0, le=64, description="accelerators reserved in the pool and given to the pod")
    priority: int = Field(
        default=0, ge=-1000, le=1000, description="workers of higher priority get their reservation first"
    )
    idle_timeout_seconds: Seconds | None = Field(
        default=None, description="unused for so long the worker becomes Idle; default: the pool's. May change"
    )
    evict_after_seconds: Seconds | None = Field(
        default=None,
        description="unused for so long, counted from the last use, the worker is evicted where eviction is Auto; "
        "default: the pool's. May change",
    )
    load_deadline_seconds: Deadline | None = Field(
        default=None, description="a worker Loading for longer has failed; default: the pool's"
    )
    schedule_deadline_seconds: Deadline | None = Field(
        default=None, description="time from the reservation to the container's start; default: the pool's"
    )
    drain_timeout_seconds: int | None = Field(
        default=None, ge=0, le=86_400, description="time to finish requests once evicted; default: the pool's"
    )
    restart_limit: int | None = Field(
        default=None,
        ge=0,
        le=100,
        description="container restarts that count; one more is a failure; default: the pool's",
    )
    eviction: Eviction = Field(
        default=Eviction.AUTO,
        description="Auto: may be evicted when unused or when its room is needed. Never: stays. May change",
    )
    template: WorkerTemplate | None = Field(default=None, description="the fields of the pod that may be set")

    @property
    def memory_mib(self) -> int:
        """The reservation in whole MiB, rounded up."""
        return parse_mib(self.memory)


class ModelWorkerSpec(WorkerSpec):
    """What the worker serves and may use. It is one incarnation: all but a few fields are fixed once it exists."""

    shutdown: bool = Field(
        default=False, description="true: finish the requests in flight and stop, for good. Cannot be taken back"
    )
    service: bool = Field(default=True, description="whether a Service of the worker's own name leads to it")


class ModelWorker(ApiModel):
    """One worker pod that serves one model with one capability; its status says truthfully where it is in its life."""

    api_version: str = API_VERSION
    kind: str = MODEL_WORKER
    metadata: ObjectMeta
    spec: ModelWorkerSpec = Field(description="what the worker serves and may use")
    status: ModelWorkerStatus = Field(
        default=ModelWorkerStatus(), description="where the worker is in its life; written by the operator"
    )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read an object as the API server sends it; raises pydantic's ``ValidationError`` where it is none."""
        return cls.model_validate(data)
