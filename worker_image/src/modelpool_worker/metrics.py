"""The worker's Prometheus metrics, all named ``modelpool_worker_…``. No label holds anything a client wrote."""

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from modelpool_api import STATES, WorkerState

OUTCOMES: Final = ("ok", "invalid", "queue_full", "not_serving", "failed", "client_left")
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class WorkerMetrics:
    """One registry per process. The gauges that others know are read when they are scraped."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(namespace="modelpool_worker", registry=self.registry)
        self._state = Gauge("modelpool_worker_state", "1 for the state it is in", ["state"], registry=self.registry)
        self._pending = Gauge(
            "modelpool_worker_pending_requests", "Requests admitted, not yet answered", registry=self.registry
        )
        self._queued = Gauge(
            "modelpool_worker_queue_depth", "Requests admitted, not yet running", registry=self.registry
        )
        self.running = Gauge("modelpool_worker_running_items", "Inputs in the running batches", registry=self.registry)
        self.requests = Counter(
            "modelpool_worker_requests", "Requests by how they ended", ["outcome"], registry=self.registry
        )
        for outcome in OUTCOMES:
            self.requests.labels(outcome)
        self.latency = Histogram(
            "modelpool_worker_request_seconds",
            "From admission to the end of the answer",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.tokens = Counter("modelpool_worker_input_tokens", "Tokens of answered requests", registry=self.registry)
        self.output_tokens = Counter("modelpool_worker_output_tokens", "Tokens generated", registry=self.registry)
        self.first_token = Histogram(
            "modelpool_worker_first_token_seconds",
            "From admission to the first token",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batch_items = Histogram(
            "modelpool_worker_batch_items", "Inputs per batch", buckets=_SIZES, registry=self.registry
        )
        self.batch_seconds = Histogram(
            "modelpool_worker_batch_seconds", "Time per batch", buckets=_SECONDS, registry=self.registry
        )
        self.phases = Gauge(
            "modelpool_worker_cold_start_seconds", "Cold start by phase", ["phase"], registry=self.registry
        )
        self.show_state(WorkerState.LOADING)

    def show_state(self, state: WorkerState) -> None:
        """Set ``state`` to 1 and every other one to 0."""
        for known in STATES:
            self._state.labels(str(known)).set(1 if known is state else 0)

    def watch(self, *, pending: Callable[[], int], queued: Callable[[], int]) -> None:
        """Read these two when the metrics are scraped."""
        self._pending.set_function(pending)
        self._queued.set_function(queued)
