"""What becomes of a request that no worker can take now: it waits for one, or hears at once why it waits in vain.

Pure: workers and Models as they are known, and the API server's time, in; a Model to ask for, or an error, out.
"""

from collections.abc import Container, Sequence
from datetime import datetime
from typing import Final

from modelpool_api import WorkerState
from modelpool_gateway import errors
from modelpool_gateway.directory import COMING, Worker
from modelpool_gateway.models import Model
from modelpool_operator.api.names import Reason

#: Reasons of a worker that only waits and can never get what it asks for as things are.
_IN_VAIN: Final = frozenset({Reason.EXCEEDS_POOL, Reason.CONFIG, Reason.POOL_NOT_FOUND})


def expect(workers: Sequence[Worker], models: Sequence[Model], tried: Container[str], now: datetime) -> Model | None:
    """Return the Model that is to make a worker, None where one is coming without that. Raises `GatewayError`.

    ``workers`` are those of the request's model, ``models`` the Models that answer to its name, ``tried`` the uids of
    workers that have had the request.
    """
    if not workers and not models:
        raise errors.unknown_model()
    if any(worker.serves and worker.uid not in tried for worker in workers):
        return _wanted(models, now)  # its breaker is open: it is tried again after its pause
    behind = {model.name for model in models if not model.fresh}
    coming = [
        worker
        for worker in workers
        if worker.state in COMING
        and not worker.leaving
        # what an older spec asks for in vain says nothing of the one that is made after the present one
        and not (worker.reason in _IN_VAIN and (worker.old or worker.owner in behind))
    ]
    stuck = [worker for worker in coming if worker.reason in _IN_VAIN]
    if len(coming) > len(stuck):
        held = [worker for worker in coming if worker.reason == Reason.POOL_HELD]
        if len(held) == len(coming):
            raise errors.held_back(held[0].reason, held[0].message)
        return _wanted(models, now)
    if stuck:
        latest = max(stuck, key=lambda worker: worker.version)
        raise errors.never_fits(latest.reason, latest.message)
    if models:
        return _asked(models, now)
    failed = [worker for worker in workers if worker.state is WorkerState.FAILED]
    if failed:
        latest = max(failed, key=lambda worker: worker.version)
        raise errors.worker_failed(latest.reason, latest.message)
    raise errors.nobody_serves()


def _wanted(models: Sequence[Model], now: datetime) -> Model | None:
    """Return whom to keep asking while a worker is on its way: it must not be taken for one that nobody wants."""
    able = [model for model in models if not model.off and not (model.pause and model.pause.holds(now))]
    return able[0] if able else None


def _asked(models: Sequence[Model], now: datetime) -> Model:
    if (able := _wanted(models, now)) is not None:
        return able
    pauses = [model.pause for model in models if not model.off and model.pause]
    if not pauses:  # one that is on and has no pause would be able
        raise errors.switched_off()
    pause = pauses[0]
    wait = None if pause.until is None else (pause.until - now).total_seconds()
    raise errors.worker_failed(pause.reason, pause.message, wait)
