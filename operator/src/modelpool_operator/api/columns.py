"""What ``kubectl get`` prints and what ``--field-selector`` can ask for."""

from typing import Any, Final

_AGE: Final[dict[str, Any]] = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}


def _column(name: str, kind: str, path: str, description: str, *, wide: bool = False) -> dict[str, Any]:
    column: dict[str, Any] = {"name": name, "type": kind, "jsonPath": path, "description": description}
    return {**column, "priority": 1} if wide else column


WORKER_COLUMNS: Final[tuple[dict[str, Any], ...]] = (
    _column("State", "string", ".status.state", "where the worker is in its life"),
    _column("Model", "string", ".spec.model.name", "name the model answers to"),
    _column("Capability", "string", ".spec.model.capability", "kind of work"),
    _column("Pool", "string", ".spec.pool", "pool the worker belongs to"),
    _column("Memory", "string", ".spec.memory", "memory reserved in the pool"),
    _column("GPUs", "integer", ".spec.gpus", "accelerators reserved in the pool"),
    _column("Pending", "integer", ".status.pendingRequests", "requests admitted and not yet answered"),
    _column("Reason", "string", ".status.reason", "why the worker is where it is"),
    _column("Node", "string", ".status.nodeName", "node the pod runs on", wide=True),
    _AGE,
)

POOL_COLUMNS: Final[tuple[dict[str, Any], ...]] = (
    _column("Memory", "string", ".spec.memory", "budget of memory"),
    _column("Reserved-MiB", "integer", ".status.reserved.memoryMiB", "reserved memory, MiB"),
    _column("Available-MiB", "integer", ".status.available.memoryMiB", "memory left, MiB"),
    _column("GPUs", "integer", ".spec.gpus", "budget of accelerators"),
    _column("Reserved-GPUs", "integer", ".status.reserved.gpus", "reserved accelerators"),
    _AGE,
)

MODEL_COLUMNS: Final[tuple[dict[str, Any], ...]] = (
    _column("Model", "string", ".spec.worker.model.name", "name the model answers to"),
    _column("Capability", "string", ".spec.worker.model.capability", "kind of work"),
    _column("Pool", "string", ".spec.worker.pool", "pool the workers belong to"),
    _column("Desired", "integer", ".status.desiredReplicas", "workers that there shall be"),
    _column("Replicas", "integer", ".status.replicas", "workers that serve or are on their way"),
    _column("Max", "integer", ".spec.maxReplicas", "workers that there may be"),
    _column("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', "whether it is as it shall be"),
    _column("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', "why"),
    _AGE,
)

#: Fields of a ModelWorker that a list or watch can be narrowed by, such as ``--field-selector status.state=Ready``.
SELECTABLE: Final = (".spec.pool", ".spec.model.name", ".spec.model.capability", ".status.state")
