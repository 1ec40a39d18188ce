"""From start to exit: load → warm up → serve → drain → unload. The only place that drives the machine."""

import asyncio
import gc
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from modelpool_api import MemoryReport, WorkerEvent, WorkerState
from modelpool_api.pod import EXIT_CRASHED, EXIT_EVICTED, EXIT_TERMINATED
from modelpool_worker import sources
from modelpool_worker.capabilities import registry
from modelpool_worker.capabilities.base import Capability, Loaded, LoadRequest
from modelpool_worker.cpus import count_cpus
from modelpool_worker.errors import InferenceFailedError, LoadError, NotServingError
from modelpool_worker.logs import where
from modelpool_worker.machine import Gauges, Machine
from modelpool_worker.metrics import WorkerMetrics
from modelpool_worker.request_queue import Item, Job, RequestQueue
from modelpool_worker.settings import WorkerSettings

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")

#: Inputs prepared at once, and their characters: small enough that another request gets its turn in between.
_PREPARE_ITEMS: Final = 64
_PREPARE_LENGTH: Final = 100_000
_HOUSEKEEPING_SECONDS: Final = 10.0
_UNLOAD_SECONDS: Final = 5.0
#: The model's threads yield to the event loop where CPUs are short, so that probes are answered.
_MODEL_NICENESS: Final = 5
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Exit:
    """How the process ends; ``sentence`` is its last word, empty for an orderly end."""

    code: int
    sentence: str = ""


class Runner:
    """One worker's life. Everything but the model's own work runs on the event loop."""

    def __init__(
        self,
        settings: WorkerSettings,
        machine: Machine,
        queue: RequestQueue,
        metrics: WorkerMetrics,
        *,
        create: Callable[[str], Capability] = registry.create,
        housekeeping: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._machine = machine
        self._queue = queue
        self._metrics = metrics
        metrics.watch(pending=lambda: machine.pending, queued=lambda: queue.depth)
        self._create = create
        self._housekeeping = housekeeping
        self._model_thread = ThreadPoolExecutor(1, "model", initializer=_be_nice)
        self._prepare_thread = ThreadPoolExecutor(1, "prepare")
        self._capability: Capability | None = None
        self.loaded = Loaded(device="", dtype="")

    def gauges(self) -> Gauges:
        """Return what a pong says besides the state."""
        resident = resident_mib()
        accelerator = self._capability.accelerator_mib() if self._capability is not None else 0
        memory = MemoryReport(measured_mib=accelerator or resident, resident_mib=resident)
        return Gauges(queue_depth=self._queue.depth, device=self.loaded.device, memory=memory)

    async def live(self) -> Exit:
        """Run from Loading to the end and say how to exit. Ends when evicted, terminated, or beyond repair."""
        told = asyncio.create_task(self._told_to_stop())
        tasks: list[asyncio.Task[Any]] = [told, asyncio.create_task(self._keep_time())]
        try:
            load = asyncio.create_task(self._load())
            tasks.append(load)
            await asyncio.wait((told, load), return_when=asyncio.FIRST_COMPLETED)
            if told.done():
                return self._orderly()  # nothing was admitted while Loading: nothing to drain
            try:
                load.result()
            except LoadError as error:
                _log.error("load failed", sentence=str(error), exit_code=error.exit_code, **_cause(error))
                return Exit(error.exit_code, str(error))
            except Exception as error:
                _log.exception("load failed")  # a load has no client's text in it
                return Exit(EXIT_CRASHED, _unexpected(error, self._settings.model_source))
            self._machine.fire(WorkerEvent.LOADED, "ModelLoaded")
            serve = asyncio.create_task(self._serve())
            tasks.append(serve)
            await asyncio.wait((told, serve), return_when=asyncio.FIRST_COMPLETED)
            if serve.done():
                return serve.result()
            await self._drain()
            return self._orderly()
        finally:
            for task in tasks:
                task.cancel()

    @contextmanager
    def admitted(self, size: int) -> Iterator[Job]:
        """Hold a place for a request of ``size`` inputs until its answer is sent; the only way in.

        Raises ``NotServingError`` or ``QueueFullError``, and then nothing was changed.
        """
        self._machine.check_serving()
        job = self._queue.open(size)
        try:
            self._machine.admit()
        except NotServingError:
            self._queue.close(job)
            raise
        try:
            yield job
        finally:
            self._queue.close(job)
            self._machine.done()

    async def compute(self, job: Job, inputs: Sequence[Any]) -> tuple[list[Any], int]:
        """Run an admitted job; return one result per input and the tokens they took. Raises ``RequestError``."""
        capability = self._capability
        if capability is None:
            raise NotServingError(self._machine.state, retry_after=1)
        tokens = first = 0
        while first < len(inputs):
            chunk = inputs[first : first + chunk_size(inputs, first)]
            prepared = await _in_thread(self._prepare_thread, partial(capability.prepare, chunk))
            tokens += sum(cost for _value, cost in prepared)
            self._queue.put(job, prepared, first)
            first += len(chunk)
        return await job.answer, tokens

    async def _load(self) -> None:
        settings = self._settings
        source = sources.parse(settings.model_source, settings.model_revision, settings.model_path)
        fetch = partial(
            sources.fetch,
            source,
            cache_dir=settings.cache_dir / "hub",
            token=os.environ.get("HF_TOKEN") or None,
            endpoint=os.environ.get("HF_ENDPOINT") or None,
        )
        # importing takes seconds, and so does a download: both at once
        importing = asyncio.ensure_future(
            self._phase("import", self._model_thread, partial(self._create, settings.capability))
        )
        fetching = asyncio.ensure_future(self._phase("fetch", self._prepare_thread, fetch))
        folder: Path
        folder, capability = await asyncio.gather(fetching, importing)
        request = LoadRequest(
            folder=folder,
            source=settings.model_source,
            dtype=settings.dtype,
            gpus=settings.gpus,
            threads=settings.threads or count_cpus(),
        )
        self.loaded = await self._phase("load", self._model_thread, partial(capability.load, request))
        await self._phase("warm_up", self._model_thread, partial(_warm_up, capability))
        self._capability = capability
        _log.info("model loaded", device=self.loaded.device, dtype=self.loaded.dtype, phases=self._machine.phases)

    async def _phase(self, name: str, thread: ThreadPoolExecutor, work: Callable[[], _T]) -> _T:
        start = time.monotonic()
        result = await _in_thread(thread, work)
        self._machine.phases[name] = seconds = round(time.monotonic() - start, 3)
        self._metrics.phases.labels(name).set(seconds)
        return result

    async def _serve(self) -> Exit:
        """Run batches for ever; return only when the model is beyond repair."""
        while True:
            await self._queue.filled()
            if (batch := self._queue.take()) and not await self._run(batch):
                return Exit(EXIT_CRASHED, "the model failed on a request and on a check after it; see the worker's log")

    async def _run(self, batch: list[Item]) -> bool:
        """Run one batch and deliver it; return False when the model does not work any more.

        Where a batch of several requests fails each runs alone, so that none pays for another's.
        """
        if await self._try(batch):
            return True
        jobs = list(dict.fromkeys(item.job for item in batch))
        for job in jobs:
            alone = [item for item in batch if item.job is job]
            if job.over or (len(jobs) > 1 and await self._try(alone)):
                continue
            job.fail(InferenceFailedError("the model failed on this request; the worker's log has the details"))
        try:
            await _in_thread(self._model_thread, self._ready_capability().warm_up)
        except Exception as error:
            _log.error("model beyond repair", error=type(error).__name__, where=where(error))
            return False
        return True

    async def _try(self, batch: list[Item]) -> bool:
        start = time.monotonic()
        self._metrics.running.set(len(batch))
        try:
            values = [item.value for item in batch]
            results = await _in_thread(self._model_thread, partial(self._ready_capability().run_batch, values))
        except Exception as error:
            _log.error("batch failed", items=len(batch), error=type(error).__name__, where=where(error))
            return False
        finally:
            self._metrics.running.set(0)
        self._metrics.batch_items.observe(len(batch))
        self._metrics.batch_seconds.observe(time.monotonic() - start)
        for item, result in zip(batch, results, strict=True):
            item.job.deliver(item.index, result)
        return True

    def _ready_capability(self) -> Capability:
        if self._capability is None:
            raise RuntimeError("no model is loaded; expected _load() to have ended")
        return self._capability

    async def _drain(self) -> None:
        """Finish what was admitted, at most for the drain timeout, and refuse what comes for the linger time."""
        start = time.monotonic()
        while self._machine.pending:
            left = self._settings.drain_timeout_seconds - (time.monotonic() - start)
            if left <= 0:
                _log.warning("drain timeout", pending=self._machine.pending)
                self._queue.fail_all(NotServingError(WorkerState.EVICTING, retry_after=1))
                break
            await self._machine.changed(left)
        linger = self._settings.linger_seconds - (time.monotonic() - start)
        await asyncio.sleep(max(0.0, linger))
        if self._capability is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_UNLOAD_SECONDS):
                    await _in_thread(self._model_thread, self._capability.unload)

    def _orderly(self) -> Exit:
        return Exit(EXIT_EVICTED if self._machine.evict_accepted else EXIT_TERMINATED)

    async def _told_to_stop(self) -> None:
        while self._machine.state is not WorkerState.EVICTING:
            await self._machine.changed(None)

    async def _keep_time(self) -> None:
        while True:
            self._machine.tick()
            self._housekeeping()
            due = self._machine.idle_due()
            await self._machine.changed(_HOUSEKEEPING_SECONDS if due is None else min(due, _HOUSEKEEPING_SECONDS))


def chunk_size(inputs: Sequence[Any], first: int) -> int:
    """Return how many inputs from ``first`` on are prepared at once: 1 at least, by number and by length."""
    length = 0
    for count, item in enumerate(inputs[first : first + _PREPARE_ITEMS]):
        length += len(item) if isinstance(item, Sized) else 1
        if count and length > _PREPARE_LENGTH:
            return count
    return min(_PREPARE_ITEMS, len(inputs) - first)


def resident_mib() -> int:
    """Return the process's resident memory, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // _MIB


def _warm_up(capability: Capability) -> None:
    capability.warm_up()
    # what the libraries made so far stays: the collector need not look through it again, which stops every thread
    gc.collect()
    gc.freeze()


def _be_nice() -> None:
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _MODEL_NICENESS)


def _in_thread(thread: ThreadPoolExecutor, work: Callable[[], _T]) -> Awaitable[_T]:
    return asyncio.get_running_loop().run_in_executor(thread, work)


def _cause(error: LoadError) -> dict[str, Any]:
    cause = error.__cause__
    return {} if cause is None else {"cause": type(cause).__name__, "where": where(cause)}


def _unexpected(error: BaseException, source: str) -> str:
    return f"loading {source} failed in a way nobody expected ({type(error).__name__}); see the worker's log"
