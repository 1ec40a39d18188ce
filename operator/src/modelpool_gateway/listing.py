"""``GET /v1/models``: what can be called by name, cold models too, in OpenAI's shape."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from modelpool_api import WorkerState
from modelpool_gateway import errors
from modelpool_gateway.directory import COMING, Directory, Worker
from modelpool_gateway.models import Model, Models
from modelpool_operator.domain.podview import parse_time

PATH: Final = "/v1/models"
#: States of a model without workers, besides those of workers.
COLD: Final = "Cold"
OFF: Final = "Off"

#: What a model is said to be where its workers differ: the first of these that one of them is in.
_BEST: Final = (
    *(WorkerState.READY, WorkerState.PROCESSING, WorkerState.IDLE, WorkerState.LOADING, WorkerState.SPAWNING),
)
_LAST: Final = (WorkerState.FAILED, WorkerState.EVICTING, WorkerState.DEAD)


class Listing:
    """The models of one namespace."""

    def __init__(
        self, namespace: str, directory: Directory, models: Models, server_now: Callable[[], datetime]
    ) -> None:
        self._namespace, self._directory, self._models = namespace, directory, models
        self._server_now = server_now

    def all(self, allowed: Callable[[str], bool]) -> dict[str, Any]:
        """Return the list of all models whose names are allowed, by name."""
        names = {model.model for model in self._models} | {worker.model for worker in self._directory}
        entries = [self._entry(name) for name in sorted(names) if allowed(name)]
        return {"object": "list", "data": [entry for entry in entries if entry is not None]}

    def one(self, name: str) -> dict[str, Any]:
        """Return one model. Raises `GatewayError` where nothing has this name."""
        entry = self._entry(name)
        if entry is None:
            raise errors.unknown_model()
        return entry

    def _entry(self, name: str) -> dict[str, Any] | None:
        workers = list(self._directory.of(self._namespace, name))
        models = self._models.of(self._namespace, name)
        if not workers and not models:
            return None
        times = [model.created for model in models] or [
            found for worker in workers if (found := parse_time(worker.created)) is not None
        ]
        return {
            "id": name,
            "object": "model",
            "created": int(min(times).timestamp()) if times else 0,
            "owned_by": "modelpool",
            "capability": models[0].capability if models else workers[0].capability,
            "state": state_of(workers, models, self._server_now()),
        }


def state_of(workers: Sequence[Worker], models: Sequence[Model], now: datetime) -> str:
    """Return what is to be said of a model in one word: a state of its workers, or Cold, Off or Failed without any."""
    here = {each.state for each in workers if each.serves or (each.state in COMING and not each.leaving)}
    for state in _BEST:
        if state in here:
            return str(state)
    if models:
        able = [model for model in models if not model.off]
        if not able:
            return OFF
        paused = all(model.pause is not None and model.pause.holds(now) for model in able)
        return str(WorkerState.FAILED) if paused else COLD
    left = {each.state for each in workers}
    return next((str(state) for state in _LAST if state in left), str(WorkerState.EVICTING))
