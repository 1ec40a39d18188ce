"""From start to exit: load → warm up → serve → drain → unload. The only place that drives the machine."""

import asyncio
import gc
import os
import time
from collections.abc import Callable, Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from modelpool_api import MemoryReport, WorkerEvent, WorkerState
from modelpool_api.pod import EXIT_CRASHED, EXIT_EVICTED, EXIT_TERMINATED
from modelpool_worker.capabilities import registry
from modelpool_worker.capabilities.base import (
    BatchCapability,
    Capability,
    Loaded,
    LoadRequest,
    Prepared,
    StepCapability,
)
from modelpool_worker.cpus import count_cpus
from modelpool_worker.errors import LoadError, NotServingError
from modelpool_worker.logs import where
from modelpool_worker.machine import Gauges, Machine
from modelpool_worker.metrics import WorkerMetrics
from modelpool_worker.models import sources
from modelpool_worker.models.hub import Hub
from modelpool_worker.models.memory import is_out_of_memory
from modelpool_worker.scheduling.batch_loop import BatchLoop
from modelpool_worker.scheduling.choices import BatchLimits
from modelpool_worker.scheduling.job import Job
from modelpool_worker.scheduling.request_queue import RequestQueue
from modelpool_worker.scheduling.step_loop import StepLoop
from modelpool_worker.settings import WorkerSettings
from modelpool_worker.threads import in_thread, model_thread, prepare_thread

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")

#: Inputs prepared at once, and their characters: small enough that another request gets its turn in between.
_PREPARE_ITEMS: Final = 64
_PREPARE_LENGTH: Final = 100_000
_HOUSEKEEPING_SECONDS: Final = 10.0
_UNLOAD_SECONDS: Final = 5.0
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Exit:
    """How the process ends; ``sentence`` is its last word: the reason of an eviction that it agreed to."""

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
        create: Callable[[str], BatchCapability | StepCapability] = registry.create,
        housekeeping: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._machine = machine
        self._queue = queue
        self._metrics = metrics
        metrics.watch(pending=lambda: machine.pending, queued=lambda: queue.depth)
        self._create = create
        self._housekeeping = housekeeping
        self._model_thread = model_thread()
        self._prepare_thread = prepare_thread()
        self._capability: BatchCapability | StepCapability | None = None
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

    async def submit(self, job: Job, inputs: Sequence[Any], *, together: bool = False) -> int:
        """Prepare and queue an admitted job's inputs; return the tokens they take.

        ``together``: none runs before all are ready. Pieces that came before would wait for who reads them only then.
        Then ``job.answer`` has one result per input, ``job.pieces()`` what comes before. Raises ``RequestError``.
        """
        capability = self._capability
        if capability is None:
            raise NotServingError(self._machine.state, retry_after=1)
        ready: list[Prepared] = []
        tokens = first = 0
        while first < len(inputs):
            chunk = inputs[first : first + chunk_size(inputs, first)]
            ready += await in_thread(self._prepare_thread, partial(capability.prepare, chunk))
            first += len(chunk)
            if not together or first == len(inputs):
                tokens += sum(each.tokens for each in ready)
                self._queue.put(job, ready, first - len(ready))
                ready.clear()  # the error of a later portion would remember it, and its memory
        return tokens

    async def compute(self, job: Job, inputs: Sequence[Any]) -> tuple[list[Any], int]:
        """Run an admitted job; return one result per input and the tokens they took. Raises ``RequestError``."""
        tokens = await self.submit(job, inputs)
        return await job.answer, tokens

    async def _load(self) -> None:
        settings = self._settings
        source = sources.parse(settings.model_source, settings.model_revision, settings.model_path)
        fetch = partial(
            sources.fetch,
            source,
            cache_dir=settings.cache_dir / "hub",
            hub=Hub(endpoint=os.environ.get("HF_ENDPOINT") or None, token=os.environ.get("HF_TOKEN") or None),
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
        result = await in_thread(thread, work)
        self._machine.phases[name] = seconds = round(time.monotonic() - start, 3)
        self._metrics.phases.labels(name).set(seconds)
        return result

    async def _serve(self) -> Exit:
        """Run batches or steps for ever; return only when the model is beyond repair."""
        limits = BatchLimits(self._settings.max_batch_items, self._settings.max_batch_tokens)
        limits = limits.below(self.loaded.max_items, self.loaded.max_tokens)
        capability = self._ready_capability()
        threads = self._model_thread if self.loaded.lanes == 1 else model_thread(self.loaded.lanes)
        shared = (self._queue, limits, threads, self._metrics, is_out_of_memory)
        if isinstance(capability, StepCapability):
            await StepLoop(capability, *shared).run()
        else:
            await BatchLoop(capability, *shared, lanes=self.loaded.lanes).run()
        return Exit(EXIT_CRASHED, "the model failed on a request and on a check after it; see the worker's log")

    def _ready_capability(self) -> BatchCapability | StepCapability:
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
                    await in_thread(self._model_thread, self._capability.unload)

    def _orderly(self) -> Exit:
        # whoever asked may have gone since, unheard: why it was agreed to is the process's last word
        return Exit(EXIT_EVICTED, self._machine.reason) if self._machine.evict_accepted else Exit(EXIT_TERMINATED)

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
    gc.enable()


def _cause(error: LoadError) -> dict[str, Any]:
    cause = error.__cause__
    return {} if cause is None else {"cause": type(cause).__name__, "where": where(cause)}


def _unexpected(error: BaseException, source: str) -> str:
    return f"loading {source} failed in a way nobody expected ({type(error).__name__}); see the worker's log"
