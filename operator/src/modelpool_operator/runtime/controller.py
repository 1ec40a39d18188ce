"""The operator as a whole: caches, a queue, reconcilers, pings, sweeps and the Lease, started and ended together."""

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from typing import Any, Final, Literal

import structlog

from modelpool_operator.api import names
from modelpool_operator.domain.errors import ApiError
from modelpool_operator.domain.idle_eviction import idle_eviction_due
from modelpool_operator.domain.pods import ImageSettings
from modelpool_operator.kube.client import KubeClient
from modelpool_operator.kube.events import EventRecorder
from modelpool_operator.metrics import OperatorMetrics, StateCollector
from modelpool_operator.runtime.budget import WriteBudget
from modelpool_operator.runtime.cache import UNREADABLE, Key, ObjectCache
from modelpool_operator.runtime.knowledge import Knowledge
from modelpool_operator.runtime.leader import Elector
from modelpool_operator.runtime.models import ModelReconciler
from modelpool_operator.runtime.pinger import Pingers
from modelpool_operator.runtime.pools import PoolReconciler
from modelpool_operator.runtime.queue import KeyedQueue
from modelpool_operator.runtime.sweeper import Changes, Sweeper
from modelpool_operator.runtime.tokens import Tokens
from modelpool_operator.runtime.workers import WorkerReconciler
from modelpool_operator.settings import OperatorSettings
from modelpool_operator.worker_client import WorkerClient

_log = structlog.get_logger(__name__)
Kind = Literal["worker", "pool", "model"]
Task = tuple[Kind, str, str]
#: A reconcile that takes longer is given up and tried again, seconds.
_RECONCILE_SECONDS: Final = 120.0
#: With work waiting and none finished for so long, the operator is stuck, seconds.
_STUCK_SECONDS: Final = 180.0
#: Everything is looked at this often, changed or not, seconds.
_RESYNC_SECONDS: Final = 60.0


class Controller:
    """Fed by watches (``worker_seen`` and its siblings); acts while it holds the Lease."""

    def __init__(self, client: KubeClient, settings: OperatorSettings, metrics: OperatorMetrics) -> None:
        self._client = client
        self._settings = settings
        self._metrics = metrics
        self._queue: KeyedQueue[Task] = KeyedQueue(urgent=self._begins)
        self._worker_client = WorkerClient()
        self.knowledge = Knowledge()
        self._listed = False
        self._resynced = time.monotonic()
        self._passed_over: set[Task] = set()
        self._stood_by = False
        #: per pool the house rules that its workers were told of: uid, generation, deleting
        self._rules: dict[Key, tuple[str, int, bool]] = {}
        self._events = EventRecorder(client, settings.pod_name)
        tokens = Tokens(client)
        self._pingers = Pingers(self.knowledge, self._worker_client, tokens, self._add_worker)
        self._workers = WorkerReconciler(
            client,
            self.knowledge,
            self._pingers,
            self._events,
            metrics,
            WriteBudget(settings.status_writes_per_second),
            self._add_pool,
            lambda key, seconds: self._queue.add_after(("worker", *key), seconds),
            time.monotonic,
        )
        images = ImageSettings(
            settings.worker_image,
            settings.worker_images,
            settings.worker_image_pull_policy,
            settings.hf_endpoint,
            settings.image_url_hosts,
            settings.image_url_refused_networks,
            settings.closed_inference,
        )
        self._pools = PoolReconciler(
            client,
            self.knowledge,
            tokens,
            metrics,
            images,
            self._add_worker,
            lambda key, seconds: self._queue.add_after(("pool", *key), seconds),
            time.monotonic,
        )
        self._models = ModelReconciler(
            client,
            self.knowledge,
            metrics,
            self._add_worker,
            lambda key, seconds: self._queue.add_after(("model", *key), seconds),
            time.monotonic,
        )
        self._sweeper = Sweeper(client, self.knowledge, settings.watch_namespaces, settings.sweep_seconds, self._swept)
        self.elector = Elector(
            client,
            settings.namespace,
            settings.lease_name,
            settings.pod_name,
            settings.lease_seconds,
            self._everything,
        )
        metrics.registry.register(
            StateCollector(
                lambda: self.knowledge.pools.values(),
                lambda: self.knowledge.workers.values(),
                lambda: self.knowledge.models.values(),
                lambda: self.elector.is_leader,
                lambda: len(self._queue),
            )
        )

    async def run(self) -> None:
        """Run until cancelled; then ``close``."""
        jobs: list[Coroutine[Any, Any, None]] = [self.elector.run(), self._sweeper.run(), self._tick()]
        jobs.append(self._events.run())
        jobs += [self._work() for _ in range(self._settings.reconcile_workers)]
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(job)

    async def close(self) -> None:
        """Stop all pings and give the Lease up. Apart from ``run``, whose cancellation may come more than once."""
        await self._pingers.close()
        await self._worker_client.close()
        await self._events.flush()
        with contextlib.suppress(ApiError):
            await self.elector.release()

    def worker_seen(self, obj: dict[str, Any], *, deleted: bool) -> None:
        """Take a watch event of a ModelWorker."""
        key = _key(obj)
        if deleted:
            known = self.knowledge.workers.get(key)
            if known is not None and self.knowledge.workers.forget(key, obj["metadata"]["uid"]):
                self._workers.forget(known)
                if known.model is not None:
                    self._add_model((known.namespace, known.model.name))
        elif _observe(self.knowledge.workers, obj):
            self._add_worker(key)

    def pool_seen(self, obj: dict[str, Any], *, deleted: bool) -> None:
        """Take a watch event of a ModelPool."""
        key = _key(obj)
        if deleted:
            if self.knowledge.pools.forget(key, obj["metadata"]["uid"]):
                self._rules.pop(key, None)
                self._pool_changed(key)
        elif _observe(self.knowledge.pools, obj):
            self._add_pool(key)
        self._tell_workers(key)

    def model_seen(self, obj: dict[str, Any], *, deleted: bool) -> None:
        """Take a watch event of a Model."""
        key = _key(obj)
        if deleted:
            known = self.knowledge.models.get(key)
            if known is not None and self.knowledge.models.forget(key, obj["metadata"]["uid"]):
                self._models.forget(known)
                for worker in self.knowledge.workers_of_model(known):
                    self._add_worker(worker.key)
        elif _observe(self.knowledge.models, obj):
            self._add_model(key)

    def demand_seen(self, obj: dict[str, Any], *, deleted: bool) -> None:
        """Take a watch event of a Lease that says what requests want of a Model."""
        demands = self.knowledge.demands
        key = demands.forget(obj) if deleted else demands.observe(obj, self._client.clock.now())
        if key is not None:
            self._add_model(key)

    def pod_seen(self, obj: dict[str, Any], *, deleted: bool) -> None:
        """Take a watch event of a worker's pod."""
        key, labels = _key(obj), obj["metadata"].get("labels") or {}
        if deleted:
            self.knowledge.pods.forget(key, obj["metadata"]["uid"])
            self._add_pool((key[0], labels.get(names.LABEL_POOL, "")))
        elif not _observe(self.knowledge.pods, obj):
            return
        self._add_worker((key[0], labels.get(names.LABEL_WORKER, "")))

    def problem(self) -> str | None:
        """Return what keeps the operator from doing its work, for the liveness probe; None while it is well."""
        silent = time.monotonic() - self._sweeper.last_success
        if silent > max(_STUCK_SECONDS, 4 * self._settings.sweep_seconds):
            return f"no full list has succeeded for {silent:.0f} s"
        if self.elector.is_leader and self._queue.stalled_for() > _STUCK_SECONDS:
            return f"no reconcile has ended for {self._queue.stalled_for():.0f} s though some wait"
        return None

    async def _work(self) -> None:
        while True:
            task = await self._queue.get()
            try:
                await self._one(task)
            finally:
                self._queue.done(task)

    async def _one(self, task: Task) -> None:
        kind, key = task[0], (task[1], task[2])
        if not self.elector.is_leader or not self.knowledge.complete:
            self._passed_over.add(task)
            return
        result = "success"
        with self._metrics.reconcile_seconds.labels(kind).time():
            try:
                async with asyncio.timeout(_RECONCILE_SECONDS):
                    await self._reconciler(kind).reconcile(key)
                self._queue.succeeded(task)
            except (ApiError, TimeoutError) as error:
                result = type(error).__name__
                asked = error.retry_after if isinstance(error, ApiError) else None
                delay = self._queue.retry(task, at_least=asked or 0.0)
                _log.warning("reconcile.failed", kind=kind, key=key, error=str(error)[:500], retry_in=round(delay, 2))
            except Exception:
                result = "bug"
                delay = self._queue.retry(task)
                _log.exception("reconcile.broken", kind=kind, key=key, retry_in=round(delay, 2))
        self._metrics.reconciles.labels(kind, result).inc()

    def _reconciler(self, kind: Kind) -> WorkerReconciler | PoolReconciler | ModelReconciler:
        match kind:
            case "worker":
                return self._workers
            case "pool":
                return self._pools
            case "model":
                return self._models

    async def _tick(self) -> None:
        """The maintenance pass: workers that may be due for eviction are looked at, even if nothing else moved."""
        while True:
            await asyncio.sleep(self._settings.maintenance_seconds)
            await self._maintain()

    async def _maintain(self) -> None:
        self._take_up()
        if not self.elector.is_leader:
            self._stood_by = True
            await self._pingers.close()  # the leader pings; ours are taken up again with the Lease
            return
        now = self._client.clock.now()
        for worker in self.knowledge.workers.values():
            if worker.uid in self.knowledge.pongs and idle_eviction_due(self.knowledge.see(worker), now):
                self._add_worker(worker.key)

    def _take_up(self) -> None:
        """Look at what was passed over while the Lease was not ours or the first list not complete.

        The Lease may lapse and be renewed between two looks at it, so this does not wait to be told.
        """
        if self.elector.is_leader and self.knowledge.complete:
            passed_over, self._passed_over = self._passed_over, set()
            for task in passed_over:
                self._queue.add(task)
            if self._stood_by:  # nobody was pinged meanwhile
                self._stood_by = False
                self._everything()

    def _begins(self, task: Task) -> bool:
        """Whether this is on the way to a pod: a Model makes workers, and a pool pods for those that were accepted."""
        if task[0] != "worker":
            return True
        worker = self.knowledge.workers.get((task[1], task[2]))
        return worker is not None and worker.state is None

    def _everything(self) -> None:
        for worker in self.knowledge.workers.values():
            self._add_worker(worker.key)
        for pool in self.knowledge.pools.values():
            self._add_pool((pool.namespace, pool.name))
        for model in self.knowledge.models.values():
            self._add_model(model.key)

    def _swept(self, changes: Changes) -> None:
        if not self._listed:
            # what the watches showed before the first list was complete has been passed over: look at everything
            self._listed = True
            self._everything()
            return
        alive = {worker.uid for worker in self.knowledge.workers.values()}
        for uid in self._pingers.watched() - alive:
            self._pingers.unwatch(uid)
            self.knowledge.forget_worker(uid)
        here: set[Task] = {("worker", *worker.key) for worker in self.knowledge.workers.values()}
        here |= {("pool", pool.namespace, pool.name) for pool in self.knowledge.pools.values()}
        here |= {("model", *model.key) for model in self.knowledge.models.values()}
        self._passed_over &= here
        for key in changes.workers:
            self._add_worker(key)
        for model in self.knowledge.models.values():
            self._add_model(model.key)
        gone = {key for key in changes.pods if self.knowledge.pods.get(key) is None}
        for worker in self.knowledge.workers.values():
            if (worker.namespace, worker.pod_name) in changes.pods or worker.deleting:
                self._add_worker(worker.key)
        for pool in self.knowledge.pools.values():
            self._add_pool((pool.namespace, pool.name))
            self._tell_workers((pool.namespace, pool.name))
        if self._sweeper.failing or time.monotonic() - self._resynced >= _RESYNC_SECONDS:
            # the API server is back: nobody waits for the end of a pause that its absence has made long. And the last
            # line of defence: a look that finds nothing to do costs no request
            self._resynced = time.monotonic()
            self._everything()
        if gone:
            _log.info("sweep.pods-gone", count=len(gone))

    def _tell_workers(self, key: Key) -> None:
        """Have a pool's workers looked at where its house rules are others than they were told before."""
        pool = self.knowledge.pools.get(key)
        rules = (pool.uid, pool.generation, pool.deleting) if pool else None
        if rules is not None and self._rules.get(key) != rules:
            self._rules[key] = rules
            self._pool_changed(key)

    def _pool_changed(self, key: Key) -> None:
        """The budget or the house rules are others now: every worker of the pool may be concerned."""
        self._add_pool(key)
        for worker in self.knowledge.workers_of(key):
            self._add_worker(worker.key)

    def _add_worker(self, key: Key) -> None:
        if key[1]:
            self._queue.add(("worker", *key))
        worker = self.knowledge.workers.get(key)
        if worker is not None and worker.model is not None:  # how many there shall be may be otherwise now
            self._add_model((key[0], worker.model.name))

    def _add_model(self, key: Key) -> None:
        self._queue.add(("model", *key))

    def _add_pool(self, key: Key) -> None:
        if key[1]:
            self._queue.add(("pool", *key))


def _observe(cache: ObjectCache[Any], obj: dict[str, Any]) -> bool:
    try:
        return cache.observe(obj)
    except UNREADABLE as error:
        _log.error("object.unreadable", key=_key(obj), error=type(error).__name__)
        return False


def _key(obj: dict[str, Any]) -> Key:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]
