"""Continuous batching: rows join and leave between two steps, each request on its own."""

import time
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count

import structlog

from modelpool_worker.capabilities.base import Piece, StepCapability
from modelpool_worker.errors import RequestError
from modelpool_worker.logs import where
from modelpool_worker.metrics import WorkerMetrics
from modelpool_worker.scheduling.choices import BatchLimits, choose_joins
from modelpool_worker.scheduling.failures import OutOfMemory, python_has_none, told_of
from modelpool_worker.scheduling.job import Item, Job
from modelpool_worker.scheduling.request_queue import RequestQueue
from modelpool_worker.threads import in_thread

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Row:
    """What is known of an item once it has joined: not its value, whose memory is counted until nobody holds it."""

    job: Job
    index: int
    cost: int


class StepLoop:
    """Takes one turn after the other as long as there are rows. The rows belong to this loop alone."""

    def __init__(
        self,
        capability: StepCapability,
        queue: RequestQueue,
        limits: BatchLimits,
        thread: ThreadPoolExecutor,
        metrics: WorkerMetrics,
        out_of_memory: OutOfMemory = python_has_none,
    ) -> None:
        self._capability = capability
        self._queue = queue
        self._limits = limits
        self._thread = thread
        self._metrics = metrics
        self._out_of_memory = out_of_memory
        self._rows: dict[int, _Row] = {}
        self._keys = count(1)

    async def run(self) -> None:
        """Serve until the model is beyond repair."""
        while True:
            if not self._rows:
                await self._queue.filled()
            # those whose client has left first: their place is free for who waits
            leaves = [key for key, row in self._rows.items() if row.job.over]
            for key in leaves:
                del self._rows[key]
            running = [row.cost for row in self._rows.values()]
            joins = {
                next(self._keys): item
                for item in self._queue.take(partial(choose_joins, running=running, limits=self._limits))
            }
            self._rows |= {key: _Row(item.job, item.index, item.cost) for key, item in joins.items()}
            if (self._rows or leaves) and not await self._turn(joins, leaves):
                return
            del joins  # its memory is counted until nobody holds it, and the next one may be long in coming

    async def _turn(self, joins: Mapping[int, Item], leaves: Collection[int]) -> bool:
        """Take one turn and pass on what came of it; return False when the model does not work any more."""
        start = time.monotonic()
        self._metrics.running.set(len(self._rows))
        values = {key: item.value for key, item in joins.items()}
        told: RequestError | None = None
        try:
            pieces = await in_thread(self._thread, partial(self._capability.turn, values, leaves))
        except Exception as error:
            _log.error("step failed", rows=len(self._rows), error=type(error).__name__, where=where(error))
            told = told_of(error, self._out_of_memory)
        if told is not None:  # not before: the error remembers all that the step held in memory
            return await self._start_over(told)
        self._metrics.batch_items.observe(len(self._rows))
        self._metrics.batch_seconds.observe(time.monotonic() - start)
        for piece in pieces:
            self._pass_on(piece)
        if not self._rows:
            self._metrics.running.set(0)
        return True

    def _pass_on(self, piece: Piece) -> None:
        row = self._rows[piece.key]
        if piece.error is not None:
            row.job.fail(piece.error)
        else:
            row.job.emit(row.index, piece.value)
        if piece.last:
            del self._rows[piece.key]
            row.job.deliver(row.index, None)

    async def _start_over(self, told: RequestError) -> bool:
        """Fail every row, and check the model before the next one joins."""
        for row in self._rows.values():
            row.job.fail(told)
        self._rows.clear()
        self._metrics.running.set(0)
        try:
            await in_thread(self._thread, self._capability.reset)
            await in_thread(self._thread, self._capability.warm_up)
        except Exception as error:
            _log.error("model beyond repair", error=type(error).__name__, where=where(error))
            return False
        return True
