"""The gateway's metrics. Labels are names of known Models and workers, and constants; never a client's text."""

import time
from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from modelpool_gateway.bodies import Bodies
from modelpool_gateway.breaker import BreakerState
from modelpool_gateway.directory import Directory, Key
from modelpool_gateway.waiting_room import WaitingRoom

_BREAKER: Final = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}
_CLASSES: Final = ("left", "1xx", "2xx", "3xx", "4xx", "5xx")


class GatewayMetrics:
    """Counters of what the gateway does."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "modelpool_gateway_requests",
            'Requests that have ended, by model ("": no known one) and class of status; left: the client did not wait',
            ["model", "code"],
            registry=self.registry,
        )
        self._retries = Counter(
            "modelpool_gateway_retries", "Times that a request went to another worker", registry=self.registry
        )
        self._hold_seconds = Histogram(
            "modelpool_gateway_hold_seconds",
            "How long requests were held for a worker, those that did not have to wait left out",
            buckets=(0.05, 0.25, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640),
            registry=self.registry,
        )
        self._api_requests = Counter(
            "modelpool_gateway_rest_client_requests",
            "Requests to the API server; 0: no answer",
            ["method", "code"],
            registry=self.registry,
        )
        # a child is looked up once: that costs more than to count
        self._children: dict[tuple[str, int], Counter] = {}

    def answered(self, model: str, status: int) -> None:
        """Count a request that has ended; ``model`` is a known one or "", ``status`` 0 where the client had left."""
        key = (model, status // 100)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._requests.labels(model, _CLASSES[min(key[1], 5)])
        child.inc()

    def retried(self) -> None:
        """Count a request that goes to another worker."""
        self._retries.inc()

    def held(self, seconds: float) -> None:
        """Take how long a request was held."""
        self._hold_seconds.observe(seconds)

    def observe_request(self, method: str, path: str, status: int) -> None:
        """Count a request to the API server."""
        del path
        self._api_requests.labels(method, str(status)).inc()


class StateCollector(Collector):
    """Gauges read at the moment of the scrape: a worker that is gone is in none of them."""

    def __init__(
        self,
        directory: Directory,
        room: WaitingRoom[Key],
        bodies: Bodies,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory, self._room, self._bodies = directory, room, bodies
        self._now = monotonic

    def collect(self) -> Iterable[Metric]:
        """Return the gauges."""
        held = GaugeMetricFamily("modelpool_gateway_held_requests", "Requests that wait for a worker")
        held.add_metric([], len(self._room))
        bodies = GaugeMetricFamily("modelpool_gateway_held_body_bytes", "Bytes of bodies in memory")
        bodies.add_metric([], self._bodies.held)
        labels = ["model", "worker"]
        running = GaugeMetricFamily("modelpool_gateway_in_flight_requests", "Requests at the worker", labels=labels)
        breaker = GaugeMetricFamily(
            "modelpool_gateway_breaker", "The worker's circuit breaker: 0 closed, 1 half-open, 2 open", labels=labels
        )
        now = self._now()
        for worker in self._directory:
            running.add_metric([worker.model, worker.name], worker.in_flight)
            breaker.add_metric([worker.model, worker.name], _BREAKER[worker.breaker.state(now)])
        return [held, bodies, running, breaker]
