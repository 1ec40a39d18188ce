"""The interface between the runner and a capability. Importing it imports no model library."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

DType = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """What to load: a checked folder, how it was called by its user, and on what it shall run."""

    folder: Path
    source: str
    dtype: DType
    gpus: int
    threads: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of it: ``device`` is ``cpu`` or ``cuda:0``; ``vector_size`` is 0 for what makes no vectors."""

    device: str
    dtype: str
    vector_size: int = 0


class Capability(Protocol):
    """One kind of work. Every method blocks; the event loop never calls one itself.

    ``load``, ``warm_up``, ``run_batch`` and ``unload`` run in the model thread, one at a time. ``prepare`` runs in
    a second thread, also one at a time, while the model thread may be in ``run_batch``.
    """

    name: ClassVar[str]

    def load(self, request: LoadRequest) -> Loaded:
        """Load the model; raise ``LoadError`` with a sentence where that cannot be done."""
        ...

    def warm_up(self) -> None:
        """Run once, so that the first request does not pay for what is made at first use."""
        ...

    def prepare(self, inputs: Sequence[Any]) -> list[tuple[Any, int]]:
        """Turn inputs into (value, cost) for ``run_batch``; ``RequestError`` for a wrong one; cost in tokens."""
        ...

    def run_batch(self, values: Sequence[Any]) -> list[Any]:
        """Run the model on prepared values of any requests; one result per value, in order."""
        ...

    def unload(self) -> None:
        """Free the model."""
        ...

    def accelerator_mib(self) -> int:
        """Return the accelerator memory the process holds, MiB; 0 where it has none."""
        ...
