"""What all our resources share: how they are read, their metadata, and the types of common fields."""

from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

#: The longest time that a resource may ask for: 30 days.
MAX_SECONDS: Final = 30 * 24 * 3600
MAX_MEMORY_MIB: Final = 1 << 30
MAX_MESSAGE_CHARS: Final = 1024


def _as_text(value: object) -> object:
    """Read a number as the text of it: YAML's ``cpu: 2`` is the quantity "2"."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


#: Memory: a number with a suffix, such as ``8Gi``. Its syntax is checked by a rule that answers with a sentence.
MemoryQuantity = Annotated[str, Field(min_length=1, max_length=20)]
#: Any quantity of Kubernetes; a bare number may be written without quotes.
Quantity = Annotated[
    str,
    BeforeValidator(_as_text),
    Field(
        max_length=20,
        json_schema_extra={
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
        },
    ),
]
Seconds = Annotated[int, Field(ge=0, le=MAX_SECONDS)]
Deadline = Annotated[int, Field(ge=1, le=MAX_SECONDS)]
#: Name of an object, the longest that Kubernetes knows.
ObjectName = Annotated[str, Field(max_length=253)]
LabelText = Annotated[str, Field(max_length=63)]
ReasonText = Annotated[str, Field(max_length=64)]
MessageText = Annotated[str, Field(max_length=MAX_MESSAGE_CHARS)]
Uid = Annotated[str, Field(max_length=64)]
LabelMap = Annotated[dict[str, LabelText], Field(max_length=16)]


class ApiModel(BaseModel):
    """Attributes are snake_case here and camelCase in the API; fields that this version does not know are ignored."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    def to_api(self) -> dict[str, Any]:
        """Return the JSON form with the API's names, without what is not set."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class OwnerReference(ApiModel):
    """Who an object belongs to."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False


class ObjectMeta(ApiModel):
    """The parts of an object's metadata that decisions need."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    finalizers: tuple[str, ...] = ()
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    owner_references: tuple[OwnerReference, ...] = ()

    @property
    def deleting(self) -> bool:
        """Whether somebody has asked for the object's deletion."""
        return self.deletion_timestamp is not None


class Toleration(ApiModel):
    """A taint that pods may stand, as in a pod's spec."""

    key: str = Field(default="", max_length=316, description="taint key; empty with operator Exists: every taint")
    operator: str = Field(
        default="Equal",
        max_length=16,
        description="Exists, or Equal (the value must be the taint's)",
        json_schema_extra={"enum": ["Equal", "Exists"]},
    )
    value: str = Field(default="", max_length=63, description="taint value; only with operator Equal")
    effect: str = Field(
        default="",
        max_length=32,
        description="effect of the taint; empty: all effects",
        json_schema_extra={"enum": ["", "NoSchedule", "PreferNoSchedule", "NoExecute"]},
    )
    toleration_seconds: int | None = Field(
        default=None, ge=0, le=MAX_SECONDS, description="with effect NoExecute: how long the taint is tolerated"
    )


class MemoryAndGpus(ApiModel):
    """An amount of what a pool hands out."""

    memory_mib: int = Field(alias="memoryMiB", ge=0, le=MAX_MEMORY_MIB * 1000, description="memory, MiB")
    gpus: int = Field(ge=0, le=100_000_000, description="accelerators")


class Headroom(ApiModel):
    """What is left; below 0 where a pool was shrunk below what it has reserved."""

    memory_mib: int = Field(alias="memoryMiB", description="memory, MiB")
    gpus: int = Field(description="accelerators")
