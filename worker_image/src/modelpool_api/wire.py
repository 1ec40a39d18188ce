"""What worker and operator say to each other on the lifecycle port, as pydantic models.

Durations are monotonic seconds of the worker's own clock (never compared with another machine's clock);
sizes are MiB.
"""

from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from modelpool_api.lifecycle import WorkerState, parse_state

CONTRACT_VERSION: Final = 1
#: A pong lists at most this many moves of its process; ``status.transitions`` keeps as many.
MAX_TRANSITIONS: Final = 20
#: The longest ``wait`` of one long-poll, seconds.
MAX_WAIT_SECONDS: Final = 60.0
MAX_MESSAGE_CHARS: Final = 1024

#: Bounds of what a pong may say: beyond them it is garbage, and is judged as such.
MAX_SECONDS: Final = 1e9
MAX_MIB: Final = 1 << 30
MAX_COUNT: Final = (1 << 31) - 1
PhaseName = Annotated[str, Field(max_length=32)]
PhaseSeconds = Annotated[float, Field(ge=0, le=MAX_SECONDS)]

#: A state as another version may write it: what is not known here parses to ``Unknown`` instead of failing.
ParsedState = Annotated[WorkerState, BeforeValidator(lambda value: parse_state(str(value)))]


class _Wire(BaseModel):
    """Unknown fields are ignored: a newer peer may say more than this version understands."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)


class WorkerTransition(_Wire):
    """One move of the worker's own state machine."""

    seq: int = Field(ge=0, description="number of the move in this process, from 1")
    from_state: ParsedState = Field(alias="from")
    to_state: ParsedState = Field(alias="to")
    reason: str = Field(default="", max_length=64, description="CamelCase, stable")
    message: str = Field(default="", max_length=MAX_MESSAGE_CHARS)
    age: float = Field(
        ge=0, le=MAX_SECONDS, description="seconds ago, by the worker's monotonic clock, when the pong was made"
    )


class MemoryReport(_Wire):
    """Memory the process really uses, MiB: of the accelerator where it has one, else resident memory."""

    measured_mib: int = Field(ge=0, le=MAX_MIB)
    resident_mib: int = Field(ge=0, le=MAX_MIB)


class Pong(_Wire):
    """The worker's answer to a ping: who it is, where it is in its life, how much it has to do."""

    contract: int = CONTRACT_VERSION
    worker_id: str = Field(max_length=64, description="uid of the ModelWorker")
    boot_id: str = Field(max_length=64, description="new for every process")
    state: ParsedState
    seq: int = Field(
        ge=0, le=MAX_COUNT, description="number of the last move; the long-poll returns when it has moved on"
    )
    timestamp: float = Field(description="wall clock of the worker, Unix seconds; for people, never for decisions")
    queue_depth: int = Field(ge=0, le=MAX_COUNT, description="requests admitted and not yet running")
    pending_requests: int = Field(
        ge=0, le=MAX_COUNT, description="requests admitted and not yet answered, running ones included"
    )
    unused_for: float | None = Field(
        default=None,
        ge=0,
        le=MAX_SECONDS,
        description="seconds since the last request ended, or since Ready; None before Ready",
    )
    transitions: tuple[WorkerTransition, ...] = Field(default=(), max_length=MAX_TRANSITIONS)
    device: str = Field(default="", max_length=64, description="what the model really runs on, such as cpu or cuda:0")
    memory: MemoryReport | None = None
    phases: dict[PhaseName, PhaseSeconds] = Field(
        default_factory=dict, max_length=16, description="seconds per phase of the cold start"
    )


class EvictRequest(_Wire):
    """Ask the worker to stop for good, if nothing speaks against it in the instant it decides.

    Without ``force`` it agrees only when it is Ready or Idle, nothing is pending and it has been unused for
    ``unused_for`` seconds. With ``force`` (shutdown, deletion, drain) it always agrees, and finishes what it has.
    """

    worker_id: str = Field(max_length=64)
    boot_id: str = Field(max_length=64)
    unused_for: float = Field(default=0.0, ge=0)
    force: bool = False
    reason: str = Field(default="Evicted", max_length=64, pattern=r"^[A-Z][A-Za-z0-9]*$")
