"""Batches: what waits runs together, and what fails together is tried apart."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import structlog

from modelpool_worker.capabilities.base import BatchCapability, NobodyWaitsError
from modelpool_worker.errors import RequestError
from modelpool_worker.logs import where
from modelpool_worker.metrics import WorkerMetrics
from modelpool_worker.scheduling.choices import BatchLimits, choose_batch
from modelpool_worker.scheduling.failures import OutOfMemory, python_has_none, told_of
from modelpool_worker.scheduling.job import Item
from modelpool_worker.scheduling.request_queue import RequestQueue
from modelpool_worker.threads import in_thread

_log = structlog.get_logger(__name__)


class BatchLoop:
    """Runs one batch after the other, formed from what waits when the model is free: no delay when idle.

    ``lanes`` batches run side by side, each in one of as many threads; none of them waits for another.
    """

    def __init__(
        self,
        capability: BatchCapability,
        queue: RequestQueue,
        limits: BatchLimits,
        thread: ThreadPoolExecutor,
        metrics: WorkerMetrics,
        out_of_memory: OutOfMemory = python_has_none,
        lanes: int = 1,
    ) -> None:
        self._capability = capability
        self._queue = queue
        self._limits = limits
        self._thread = thread
        self._metrics = metrics
        self._out_of_memory = out_of_memory
        self._lanes = self._free = lanes

    async def run(self) -> None:
        """Serve until the model is beyond repair."""
        lanes = [asyncio.create_task(self._run_lane()) for _ in range(self._lanes)]
        try:
            ended, _ = await asyncio.wait(lanes, return_when=asyncio.FIRST_COMPLETED)
            for lane in ended:
                lane.result()
        finally:
            for lane in lanes:
                lane.cancel()

    async def _run_lane(self) -> None:
        healthy = True
        while healthy:
            await self._queue.filled()
            batch = self._queue.take(partial(choose_batch, limits=self._limits, sharers=self._free))
            self._free -= 1
            try:
                healthy = not batch or await self._run(batch)
            finally:
                self._free += 1
            del batch  # its memory is counted until nobody holds it, and the next one may be long in coming

    async def _run(self, batch: Sequence[Item]) -> bool:
        """Run one batch and deliver it; return False when the model does not work any more.

        Where a batch of several requests fails each runs alone, so that none pays for another's.
        """
        told = await self._try(batch)
        if told is None:
            return True
        jobs = list(dict.fromkeys(item.job for item in batch))
        for job in jobs:
            alone = [item for item in batch if item.job is job]
            if job.over:
                continue
            if len(jobs) > 1:
                told = await self._try(alone)
            if told is not None:
                job.fail(told)
        try:
            await in_thread(self._thread, self._capability.warm_up)
        except Exception as error:
            _log.error("model beyond repair", error=type(error).__name__, where=where(error))
            return False
        return True

    async def _try(self, batch: Sequence[Item]) -> RequestError | None:
        """Run a batch and deliver it; return what its requests are told where it fails."""
        start = time.monotonic()
        self._metrics.running.inc(len(batch))
        values = [item.value for item in batch]
        wanted = partial(_wanted, batch)
        try:
            results = await in_thread(self._thread, partial(self._capability.run_batch, values, wanted))
        except NobodyWaitsError:
            return None
        except Exception as error:
            _log.error("batch failed", items=len(batch), error=type(error).__name__, where=where(error))
            return told_of(error, self._out_of_memory)
        finally:
            self._metrics.running.dec(len(batch))
        self._metrics.batch_items.observe(len(batch))
        self._metrics.batch_seconds.observe(time.monotonic() - start)
        for item, result in zip(batch, results, strict=True):
            item.job.deliver(item.index, result)
        return None


def _wanted(batch: Sequence[Item]) -> bool:
    return any(not item.job.over for item in batch)
