"""What a reconcile decides, as data: moves to write, fields to write, actions to take. A dumb executor does them."""

from dataclasses import dataclass, field
from typing import Any

from modelpool_operator.api.names import Reason
from modelpool_operator.domain.transitions import Move


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Put our finalizer on the worker, before anything is reserved for it."""


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """Let a deleted worker go: its pod is gone and its charge released."""


@dataclass(frozen=True, slots=True)
class AskPool:
    """Have the pool's ledger looked at: this worker waits for room, or its reservation can go."""


@dataclass(frozen=True, slots=True)
class EnsureService:
    """Make the Service of the worker's own name."""


@dataclass(frozen=True, slots=True)
class LiftGate:
    """Let the scheduler have the pod: its reservation is in the ledger."""

    pod_uid: str
    pod_resource_version: str


@dataclass(frozen=True, slots=True)
class DeletePod:
    """Delete the pod with this uid."""

    pod_uid: str
    grace_seconds: int


@dataclass(frozen=True, slots=True)
class AskEvict:
    """Ask the worker process to evict itself; it decides and moves in one step, or refuses."""

    reason: Reason
    unused_for: float = 0.0
    force: bool = False


Action = AddFinalizer | RemoveFinalizer | AskPool | EnsureService | LiftGate | DeletePod | AskEvict


@dataclass(frozen=True)
class Plan:
    """One pass over one worker.

    ``fields`` are written with the moves, or alone when they differ; ``gauges`` only when the write budget allows.
    ``destructive`` plans are made again on a fresh read before they are carried out.
    """

    accept: bool = False
    moves: tuple[Move, ...] = ()
    fields: dict[str, Any] = field(default_factory=dict)
    gauges: dict[str, Any] = field(default_factory=dict)
    actions: tuple[Action, ...] = ()
    destructive: bool = False
    wake_after: float | None = None
