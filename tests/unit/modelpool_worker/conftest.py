"""A worker without a network: settings, a capability that the test holds in its hand, both apps."""

import asyncio
import threading
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest

from modelpool_worker.capabilities import registry
from modelpool_worker.capabilities.base import Loaded, Prepared
from modelpool_worker.machine import Machine
from modelpool_worker.metrics import WorkerMetrics
from modelpool_worker.runner import Runner
from modelpool_worker.scheduling.request_queue import RequestQueue
from modelpool_worker.settings import WorkerSettings
from modelpool_worker.web import inference_app, lifecycle_app
from modelpool_worker.web.bearer import BearerToken


class Gated:
    """A capability that blocks its thread until the test opens the gate; a vector is [length of the text, 0]."""

    name = "text-embedding"

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.loading = threading.Event()
        self.entered = threading.Event()
        self.load_error: BaseException | None = None
        self.poison: str | None = None
        self.error = "cannot embed"
        self.broken = False
        self.batches: list[list[Any]] = []
        self.loading.set()
        self.gate.set()

    def load(self, request):
        assert self.loading.wait(30)
        if self.load_error is not None:
            raise self.load_error
        return Loaded(device="cpu", dtype="float32", vector_size=2)

    def warm_up(self):
        if self.broken:
            raise RuntimeError("device lost")

    def prepare(self, inputs):
        return [Prepared(text, len(text), len(text)) for text in inputs]

    def run_batch(self, values, wanted):
        self.entered.set()
        assert self.gate.wait(30)
        self.batches.append(list(values))
        if self.broken or self.poison in values:
            raise RuntimeError(f"{self.error} {values}")
        return [np.array([len(value), 0], dtype=np.float32) for value in values]

    def unload(self):
        pass

    def accelerator_mib(self):
        return 0


@dataclass
class Worker:
    settings: WorkerSettings
    capability: Gated
    machine: Machine
    queue: RequestQueue
    metrics: WorkerMetrics
    runner: Runner
    inference: Any
    lifecycle: Any
    life: "asyncio.Task[Any] | None" = field(default=None)

    async def reach(self, *states: str) -> None:
        """Wait until the machine is in one of these states."""
        async with asyncio.timeout(20):
            while str(self.machine.state) not in states:
                await self.machine.changed(None)

    async def until_running(self) -> None:
        """Wait until a batch is in the model's thread."""
        assert await asyncio.to_thread(self.capability.entered.wait, 20)


@pytest.fixture
def make_worker(tmp_path):
    made = []

    def make(model=None, *, entries=None, **changes):
        """``model`` is a capability; with ``entries`` it is the one that the settings name there."""
        (tmp_path / "token").write_text("sekret\n")
        settings = WorkerSettings(
            **(
                {
                    "worker_id": "uid",
                    "model_name": "org/m",
                    "capability": "text-embedding",
                    "model_source": f"file://{tmp_path}",
                    "token_dir": tmp_path,
                    "cache_dir": tmp_path,
                    "termination_file": tmp_path / "termination",
                    "linger_seconds": 0,
                }
                | changes
            )
        )
        clock = asyncio.get_running_loop().time
        capability, metrics = model or Gated(), WorkerMetrics()
        machine = Machine(
            worker_id="uid",
            boot_id="boot",
            idle_timeout=settings.idle_timeout_seconds,
            clock=clock,
            on_move=lambda move: metrics.show_state(move.to_state),
        )
        queue = RequestQueue(
            max_requests=settings.max_queued_requests,
            max_inputs=settings.max_queued_inputs,
        )
        known = registry.ENTRIES if entries is None else entries
        create = partial(registry.create, entries=known) if entries is not None else lambda _name: capability
        runner = Runner(settings, machine, queue, metrics, create=create)
        token = BearerToken(settings.token_file, clock)
        worker = Worker(
            settings,
            capability,
            machine,
            queue,
            metrics,
            runner,
            inference_app.create_app(
                settings,
                machine,
                runner,
                metrics,
                entries=known,
                token=token if settings.closed_inference else None,
            ),
            lifecycle_app.create_app(machine, token, gauges=runner.gauges, wall_clock=lambda: 1_700_000_000.0),
        )
        made.append(worker)
        return worker

    yield make
    for worker in made:
        for event in ("gate", "loading"):
            if hasattr(worker.capability, event):
                getattr(worker.capability, event).set()


@pytest.fixture
async def loading(make_worker):
    """A worker whose load waits for ``capability.loading``."""
    worker = make_worker()
    worker.capability.loading.clear()
    worker.life = asyncio.create_task(worker.runner.live())
    await asyncio.sleep(0)
    yield worker
    worker.life.cancel()
    await asyncio.gather(worker.life, return_exceptions=True)


@pytest.fixture
async def ready(make_worker):
    """A worker that is Ready."""
    worker = make_worker()
    worker.life = asyncio.create_task(worker.runner.live())
    await worker.reach("Ready")
    yield worker
    worker.life.cancel()
    await asyncio.gather(worker.life, return_exceptions=True)
