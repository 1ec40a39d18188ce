"""The operator's own metrics. Labels are names from specs and constants, never text of clients."""

from collections import Counter as Counts
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from modelpool_api import STATES
from modelpool_operator.domain.objects import ModelView, PoolView, WorkerView


class OperatorMetrics:
    """Counters of what the operator does."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconciles = Counter(
            "modelpool_reconcile", "Reconciles by kind and result", ["kind", "result"], registry=self.registry
        )
        self.reconcile_seconds = Histogram(
            "modelpool_reconcile_time_seconds", "Duration of a reconcile", ["kind"], registry=self.registry
        )
        self.requests = Counter(
            "modelpool_rest_client_requests", "Requests to the API server", ["method", "code"], registry=self.registry
        )
        self.conflicts = Counter(
            "modelpool_conflicts", "Writes refused because somebody else wrote first", ["kind"], registry=self.registry
        )
        self.moves = Counter(
            "modelpool_worker_transitions",
            "Moves written, by state",
            ["from_state", "to_state"],
            registry=self.registry,
        )
        self.evicted = Counter(
            "modelpool_workers_evicted", "Workers that ended, by reason", ["reason"], registry=self.registry
        )
        self.repairs = Counter(
            "modelpool_ledger_repairs", "Ledger entries that a sweep had to correct", registry=self.registry
        )
        self.release_seconds = Histogram(
            "modelpool_release_time_seconds",
            "From the confirmation that a pod is gone to its reservation's release",
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        self.cold_start_seconds = Histogram(
            "modelpool_cold_start_time_seconds",
            "From the creation of a ModelWorker to Ready",
            ["capability"],
            buckets=(1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640, 1280),
            registry=self.registry,
        )

    def observe_request(self, method: str, path: str, status: int) -> None:
        """Count a request to the API server; 0 stands for no answer."""
        del path
        self.requests.labels(method, str(status)).inc()


class StateCollector(Collector):
    """Gauges read from the caches at the moment of the scrape, so that they cannot drift from them."""

    def __init__(
        self,
        pools: Callable[[], Iterable[PoolView]],
        workers: Callable[[], Iterable[WorkerView]],
        models: Callable[[], Iterable[ModelView]],
        is_leader: Callable[[], bool],
        depth: Callable[[], int],
    ) -> None:
        self._pools = pools
        self._workers = workers
        self._models = models
        self._is_leader = is_leader
        self._depth = depth

    def collect(self) -> Iterable[Metric]:
        """Return the gauges."""
        labels = ["namespace", "pool"]
        memory = GaugeMetricFamily("modelpool_pool_reserved_memory_mib", "Sum of the ledger, MiB", labels=labels)
        gpus = GaugeMetricFamily("modelpool_pool_reserved_gpus", "Sum of the ledger, accelerators", labels=labels)
        budget = GaugeMetricFamily("modelpool_pool_budget_memory_mib", "The budget, MiB", labels=labels)
        budget_gpus = GaugeMetricFamily("modelpool_pool_budget_gpus", "The budget, accelerators", labels=labels)
        for pool in self._pools():
            where, reserved = [pool.namespace, pool.name], pool.reserved
            memory.add_metric(where, reserved.memory_mib)
            gpus.add_metric(where, reserved.gpus)
            budget.add_metric(where, pool.budget.memory_mib)
            budget_gpus.add_metric(where, pool.budget.gpus)
        counts = Counts(
            (worker.namespace, worker.spec.pool, str(worker.state)) for worker in self._workers() if worker.state
        )
        states = GaugeMetricFamily("modelpool_workers", "Workers by state", labels=[*labels, "state"])
        for namespace, pool_name in sorted({found[:2] for found in counts}):
            for state in STATES:
                states.add_metric([namespace, pool_name, str(state)], counts[(namespace, pool_name, str(state))])
        labels = ["namespace", "model"]
        wanted = GaugeMetricFamily("modelpool_model_desired_replicas", "Workers that there shall be", labels=labels)
        there = GaugeMetricFamily("modelpool_model_replicas", "Workers that serve or are on their way", labels=labels)
        failures = GaugeMetricFamily("modelpool_model_failures", "Workers that failed in a row", labels=labels)
        for model in self._models():
            where, status = [model.namespace, model.name], model.status
            wanted.add_metric(where, status.get("desiredReplicas") or 0)
            there.add_metric(where, status.get("replicas") or 0)
            failures.add_metric(where, (status.get("backOff") or {}).get("failures") or 0)
        leader = GaugeMetricFamily("modelpool_leader", "1 while this operator holds the Lease")
        leader.add_metric([], 1.0 if self._is_leader() else 0.0)
        depth = GaugeMetricFamily("modelpool_workqueue_depth", "Keys waiting to be reconciled")
        depth.add_metric([], self._depth())
        return [memory, gpus, budget, budget_gpus, states, wanted, there, failures, leader, depth]
