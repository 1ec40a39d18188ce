"""Model: a name that can be called whether a worker runs or not, and how many workers it may have."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import Field

from modelpool_operator.api.conditions import Condition
from modelpool_operator.api.modelworker import WorkerSpec
from modelpool_operator.api.names import API_VERSION, MODEL
from modelpool_operator.api.resource import ApiModel, LabelText, MessageText, ObjectMeta, ReasonText, Uid

#: The most workers that one Model may have.
MAX_REPLICAS = 1000
#: The longest time between two uses that a request may ask to be kept for, seconds: a day.
MAX_KEEP_ALIVE_SECONDS = 86_400
#: ``keepAliveSeconds`` of a Model whose workers stay for as long as may be.
PINNED = -1


class ModelSpec(ApiModel):
    """What each worker of the Model is like, and how many there may be."""

    worker: WorkerSpec = Field(
        description="what each worker is like. Another model, source, memory or template means other workers, which "
        "take the place of those there are; idleTimeoutSeconds, evictAfterSeconds and eviction change them as they are"
    )
    replicas: int = Field(
        default=0,
        ge=0,
        le=MAX_REPLICAS,
        description="workers that somebody wants at least, a person or an autoscaler; kubectl scale changes it",
    )
    min_replicas: int = Field(
        default=0, ge=0, le=MAX_REPLICAS, description="workers that are kept however little there is to do"
    )
    max_replicas: int = Field(
        default=1, ge=0, le=MAX_REPLICAS, description="workers that there may be; 0 switches the Model off"
    )
    target_pending: int = Field(
        default=8, ge=1, le=10_000, description="requests at once that one worker is enough for; more want another"
    )


class ModelBackOff(ApiModel):
    """Workers that have failed in a row: the next one is made after a pause, or not before the spec changes."""

    failures: int = Field(ge=1, description="failures in a row of workers of this template")
    worker_uid: Uid = Field(alias="workerUID", description="uid of the worker that failed last")
    template: LabelText = Field(description="hash of the template that the workers were made from")
    reason: ReasonText = Field(description="why the last one failed, as one stable CamelCase word")
    message: MessageText = Field(default="", description="why, as a sentence")
    failed_time: datetime = Field(description="when the last one failed")
    retry_time: datetime | None = Field(
        default=None, description="when the next one may be made; absent: when the worker's spec has changed"
    )


class ModelStatus(ApiModel):
    """How many workers there are and shall be, and what keeps them from being there."""

    observed_generation: int | None = Field(
        default=None, ge=0, description="metadata.generation of the spec that this status was decided on"
    )
    desired_replicas: int = Field(default=0, ge=0, description="workers that there shall be, as the operator decided")
    replicas: int = Field(default=0, ge=0, description="workers that serve or are on their way")
    replicas_by_state: Annotated[dict[str, int], Field(max_length=16)] = Field(
        default_factory=dict, description="number of workers by state"
    )
    selector: str = Field(default="", max_length=256, description="labels of the workers' pods, for autoscalers")
    template: LabelText = Field(default="", description="hash of the template that workers are made from now")
    serial: int = Field(default=0, ge=0, description="number in the name of the worker that was made last")
    keep_alive_seconds: int | None = Field(
        default=None,
        ge=PINNED,
        le=MAX_KEEP_ALIVE_SECONDS,
        description="how long after their last use the workers stay, as a request has asked; -1: as long as may be",
    )
    back_off: ModelBackOff | None = Field(default=None, description="workers that have failed in a row")
    cold_start_seconds: Annotated[dict[str, float], Field(max_length=16)] = Field(
        default_factory=dict, description="seconds per phase of the latest cold start"
    )
    conditions: tuple[Condition, ...] = Field(
        default=(),
        max_length=16,
        description="the Model's state in the form that generic tools understand",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )


class Model(ApiModel):
    """A model that can be called by its name; workers come when they are needed and go when they are not."""

    api_version: str = API_VERSION
    kind: str = MODEL
    metadata: ObjectMeta
    spec: ModelSpec = Field(description="what each worker is like, and how many there may be")
    status: ModelStatus = Field(
        default=ModelStatus(), description="how many workers there are and shall be; written by the operator"
    )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read an object as the API server sends it; raises pydantic's ``ValidationError`` where it is none."""
        return cls.model_validate(data)
