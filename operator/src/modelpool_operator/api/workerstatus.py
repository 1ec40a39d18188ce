"""The status of a ModelWorker: a true account of where it is in its life and how it came there."""

from datetime import datetime
from typing import Annotated, Final

from pydantic import Field

from modelpool_api import STATES
from modelpool_api.wire import MAX_TRANSITIONS, ParsedState
from modelpool_operator.api.conditions import Condition
from modelpool_operator.api.resource import (
    MAX_MEMORY_MIB,
    ApiModel,
    MessageText,
    ObjectName,
    ReasonText,
    Uid,
)

#: A transition's own message is short; the whole sentence stands in ``status.message``.
MAX_TRANSITION_MESSAGE_CHARS: Final = 256

#: Read leniently (a newer version's state is ``Unknown``), written strictly: the table's states and no other.
_State = Annotated[
    ParsedState, Field(json_schema_extra={"type": "string", "maxLength": 16, "enum": [str(state) for state in STATES]})
]


class Transition(ApiModel):
    """One move of the worker's life."""

    from_state: _State = Field(alias="from", description="state before")
    to_state: _State = Field(alias="to", description="state after")
    reason: ReasonText = Field(default="", description="why, as one stable CamelCase word")
    message: str = Field(default="", max_length=MAX_TRANSITION_MESSAGE_CHARS, description="why, as a sentence")
    time: datetime = Field(description="when it happened")


class MeasuredMemory(ApiModel):
    """What the worker was promised and what it really uses."""

    declared: int | None = Field(default=None, ge=0, le=MAX_MEMORY_MIB, description="reserved memory, MiB")
    measured: int | None = Field(default=None, ge=0, le=MAX_MEMORY_MIB, description="memory in use, MiB")


class MirroredMove(ApiModel):
    """The last of the worker's own moves that this status shows."""

    boot_id: str = Field(default="", alias="bootID", max_length=64, description="process that made the move")
    seq: int = Field(default=0, ge=0, description="number of the move in that process")


class LastFailure(ApiModel):
    """How the container or the pod last ended without having been told to."""

    reason: ReasonText = Field(default="", description="why, as one stable CamelCase word")
    exit_code: int | None = Field(default=None, ge=-1, le=255, description="exit code of the process")
    message: MessageText = Field(default="", description="the worker's own sentence where it left one, else ours")
    container: str = Field(default="", max_length=63, description="container that ended")
    time: datetime | None = Field(default=None, description="when it ended")


class ModelWorkerStatus(ApiModel):
    """Where the worker is in its life, how it came there, and what it is doing."""

    state: _State | None = Field(default=None, description="where the worker is in its life")
    reason: ReasonText = Field(default="", description="why, as one stable CamelCase word; fixed once Failed or Dead")
    message: MessageText = Field(default="", description="why, as a sentence for people")
    observed_generation: int | None = Field(
        default=None, ge=0, description="metadata.generation of the spec that this status was decided on"
    )
    conditions: tuple[Condition, ...] = Field(
        default=(),
        max_length=16,
        description="the worker's state in the form that generic tools understand",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    pod_name: ObjectName = Field(default="", description="name of the worker's pod")
    pod_uid: Uid = Field(default="", alias="podUID", description="uid of the worker's pod")
    node_name: ObjectName = Field(default="", description="node that the pod runs on")
    endpoint: str = Field(default="", max_length=512, description="URL that requests go to")
    restarts: int = Field(
        default=0,
        ge=0,
        description="how often a process of the container has died, whether it was started again or not",
    )
    restarts_forgiven: int = Field(
        default=0, ge=0, description="restarts before the worker was Ready for the restart window; they do not count"
    )
    memory_mib: MeasuredMemory | None = Field(default=None, alias="memoryMiB", description="memory, MiB")
    device: str = Field(default="", max_length=64, description="what the model runs on, such as cpu or cuda:0")
    pending_requests: int | None = Field(default=None, ge=0, description="requests admitted and not yet answered")
    queue_depth: int | None = Field(default=None, ge=0, description="requests admitted and not yet running")
    last_used_time: datetime | None = Field(default=None, description="when the last request ended")
    ready_time: datetime | None = Field(default=None, description="when the worker last came from Loading to Ready")
    mirrored: MirroredMove | None = Field(default=None, description="last of the worker's own moves shown here")
    cold_start_seconds: Annotated[dict[str, float], Field(max_length=16)] = Field(
        default_factory=dict, description="seconds per phase of the cold start"
    )
    transitions: tuple[Transition, ...] = Field(
        default=(),
        max_length=MAX_TRANSITIONS,
        description="the latest moves, oldest first; the last one ends in state",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    last_failure: LastFailure | None = Field(default=None, description="how the container or the pod last ended")
