"""The interface between the runner and a capability. Importing it imports no model library.

A capability comes in one of two forms. A `BatchCapability` answers a batch of inputs in one call. A `StepCapability`
keeps rows that join, advance a step per turn and leave, each on its own: text that is generated token by token.
"""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

from modelpool_worker.errors import RequestError

DType = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """What to load: a folder, how it was called by its user, and on what it shall run."""

    folder: Path
    source: str
    dtype: DType
    gpus: int
    threads: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of it: ``device`` is ``cpu`` or ``cuda:0``; ``vector_size`` is 0 for what makes no vectors.

    ``context_tokens`` is how long prompt and answer may be together, 0 where nothing is generated.
    ``max_items`` and ``max_tokens`` bound a batch below the settings where the model or its memory asks for it.
    ``lanes`` is how many batches run side by side, each in a thread of its own.
    """

    device: str
    dtype: str
    vector_size: int = 0
    context_tokens: int = 0
    max_items: int | None = None
    max_tokens: int | None = None
    lanes: int = 1


class Prepared(NamedTuple):
    """One input made ready: ``cost`` is its length for batching, ``tokens`` what its usage says.

    Only inputs of equal ``group`` run in one batch.
    """

    value: Any
    cost: int
    tokens: int
    group: Hashable = None


class NobodyWaitsError(Exception):
    """Raised by a batch that stopped because ``wanted()`` became false."""


class Capability(Protocol):
    """What both forms have. Every method blocks; the event loop never calls one itself.

    ``prepare`` runs in a thread of its own, one call at a time, while the model thread may be busy; everything else
    runs in the model thread, one at a time. Only a model with several lanes is called from as many threads at once,
    by ``run_batch`` and the ``warm_up`` after a failed one.
    """

    name: ClassVar[str]

    def load(self, request: LoadRequest) -> Loaded:
        """Load the model; raise ``LoadError`` with a sentence where that cannot be done."""
        ...

    def warm_up(self) -> None:
        """Run once, so that the first request does not pay for what is made at first use; a check as well.

        Also called after a failed batch or turn: an error then means that the model is beyond repair.
        """
        ...

    def prepare(self, inputs: Sequence[Any]) -> list[Prepared]:
        """Make inputs ready, one result each, in order; ``RequestError`` for a wrong one."""
        ...

    def unload(self) -> None:
        """Free the model."""
        ...

    def accelerator_mib(self) -> int:
        """Return the accelerator memory the process holds, MiB; 0 where it has none. Called from any thread."""
        ...


class BatchCapability(Capability, Protocol):
    """Inputs of any requests go in together, one result each comes out."""

    def run_batch(self, values: Sequence[Any], wanted: Callable[[], bool]) -> list[Any]:
        """Run the model on prepared values of any requests; one result per value, in order.

        What takes long asks ``wanted()`` now and then, and raises ``NobodyWaitsError`` once it is false.
        """
        ...


class Piece(NamedTuple):
    """What a row has to say after a turn. ``last``: the row is over and was dropped, also with an ``error``."""

    key: int
    value: Any
    last: bool = False
    error: RequestError | None = None


@runtime_checkable
class StepCapability(Capability, Protocol):
    """Rows that join, step and leave."""

    def turn(self, joins: Mapping[int, Any], leaves: Collection[int]) -> list[Piece]:
        """Drop the rows ``leaves``, take in ``joins`` (key → prepared value), advance every row by a step.

        A row that cannot go on says so in a piece of its own, and its neighbours never notice. An exception means that
        all rows are lost.
        """
        ...

    def reset(self) -> None:
        """Drop every row, after a failed turn."""
        ...
