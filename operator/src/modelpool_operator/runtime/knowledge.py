"""All that the operator knows in memory. Losing it loses nothing: it is rebuilt from lists and pings."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from modelpool_api import FLIP_STATES, Pong, WorkerState
from modelpool_api.health import NO_PINGS, HealthRecord, PingOutcome
from modelpool_operator.api import names
from modelpool_operator.api.names import Reason
from modelpool_operator.domain.model_plan import ModelSeen
from modelpool_operator.domain.objects import ModelView, PoolView, WorkerView, model_view, pool_view, worker_view
from modelpool_operator.domain.podview import PodView, pod_view
from modelpool_operator.domain.seen import Seen
from modelpool_operator.runtime.cache import Group, Key, ObjectCache
from modelpool_operator.runtime.demands import Demands

#: So many workers unreachable at once, and at least half of all, are our own fault and not theirs.
_CUT_OFF: Final = 3


@dataclass
class Knowledge:
    """Caches of the API's objects, and what pings and pools said, by uid of the worker."""

    workers: ObjectCache[WorkerView] = field(default_factory=lambda: ObjectCache(worker_view, _groups))
    pools: ObjectCache[PoolView] = field(default_factory=lambda: ObjectCache(pool_view))
    models: ObjectCache[ModelView] = field(default_factory=lambda: ObjectCache(model_view))
    pods: ObjectCache[PodView] = field(default_factory=lambda: ObjectCache(pod_view))
    pongs: dict[str, Pong] = field(default_factory=dict)
    health: dict[str, HealthRecord] = field(default_factory=dict)
    quota: dict[str, tuple[Reason, str]] = field(default_factory=dict)
    room_wanted: dict[str, Reason] = field(default_factory=dict)
    #: what requests want of the Models, as their Leases say
    demands: Demands = field(default_factory=Demands)
    #: by uid of the Model, which of its workers it wants to stay: never written down, and who is not known here is kept
    keeps: dict[str, frozenset[str]] = field(default_factory=dict)
    #: workers that their Model has no use for any more
    dismissed: dict[str, Reason] = field(default_factory=dict)
    #: when each pong came in, monotonic seconds
    heard: dict[str, float] = field(default_factory=dict)
    #: workers that refused even a forced eviction: they are not asked again
    deaf: set[str] = field(default_factory=set)
    #: workers whose Service's name belongs to somebody else's Service
    service_taken: set[str] = field(default_factory=set)
    #: workers whose Service is there; their status says so with its next write
    service_made: set[str] = field(default_factory=set)
    monotonic: Callable[[], float] = time.monotonic

    @property
    def complete(self) -> bool:
        """Whether every kind has been listed at least once."""
        return all(cache.complete for cache in (self.workers, self.pools, self.models, self.pods))

    def pool_of(self, worker: WorkerView) -> PoolView | None:
        """Return the worker's pool."""
        return self.pools.get((worker.namespace, worker.spec.pool))

    def pod_of(self, worker: WorkerView) -> PodView | None:
        """Return the worker's pod; one of that name that belongs to somebody else is not it."""
        pod = self.pods.get((worker.namespace, worker.pod_name))
        return pod if pod is not None and pod.owner_uid == worker.uid else None

    def workers_of(self, pool: Key) -> list[WorkerView]:
        """Return all workers that name this pool."""
        return self.workers.in_group(("pool", *pool))

    def workers_of_model(self, model: ModelView) -> list[WorkerView]:
        """Return all workers that a Model has made."""
        return self.workers.in_group(("model", model.uid))

    def model_of(self, worker: WorkerView) -> ModelView | None:
        """Return the worker's Model."""
        if worker.model is None:
            return None
        model = self.models.get((worker.namespace, worker.model.name))
        return model if model is not None and model.uid == worker.model.uid else None

    def kept(self, worker: WorkerView) -> bool:
        """Whether its Model wants the worker to stay; while that is not known it stays."""
        model = self.model_of(worker)
        if model is None:
            return worker.model is not None and not self.models.complete
        keeps = self.keeps.get(model.uid)
        return keeps is None or worker.uid in keeps

    def see_model(self, model: ModelView) -> ModelSeen:
        """Put together what a decision about this Model may depend on."""
        workers = tuple(self.workers_of_model(model))
        pongs = {worker.uid: pong for worker in workers if (pong := self.pong_now(worker.uid)) is not None}
        pool = self.pools.get((model.namespace, model.spec.worker.pool))
        return ModelSeen(
            model=model,
            workers=workers,
            pongs=pongs,
            demand=self.demands.of(model.key, model.uid),
            retention=float(pool.spec.failed_retention_seconds) if pool else 0.0,
        )

    def cut_off(self) -> bool:
        """Whether so many workers do not answer, though the kubelet calls them ready, that it must be us."""
        asked = unreachable = 0
        for worker in self.workers.values():
            record = self.health.get(worker.uid, NO_PINGS)
            if worker.state not in FLIP_STATES or record.last_outcome is None:
                continue
            asked += 1
            pod = self.pod_of(worker)
            if record.last_outcome is PingOutcome.UNREACHABLE and pod is not None and pod.ready:
                unreachable += 1
        return unreachable >= _CUT_OFF and 2 * unreachable >= asked

    def see(self, worker: WorkerView) -> Seen:
        """Put together what a decision about this worker may depend on."""
        record = self.health.get(worker.uid, NO_PINGS)
        return Seen(
            worker=worker,
            pool=self.pool_of(worker),
            quota=self.quota.get(worker.uid),
            pod=self.pod_of(worker),
            pong=self.pong_now(worker.uid),
            health=record,
            cut_off=record.misses > 0 and self.cut_off(),
            room_wanted=self.room_wanted.get(worker.uid),
            kept=self.kept(worker) or self._another_goes(worker),
            dismissed=self.dismissed.get(worker.uid),
            keep_alive=model.keep_alive if (model := self.model_of(worker)) else None,
            deaf=worker.uid in self.deaf,
            service_taken=worker.uid in self.service_taken,
            service_made=worker.uid in self.service_made,
        )

    def _another_goes(self, worker: WorkerView) -> bool:
        """Whether another worker of its Model is being evicted: one at a time."""
        if worker.model is None:
            return False
        siblings = self.workers.in_group(("model", worker.model.uid))
        return any(each.state is WorkerState.EVICTING and each.uid != worker.uid for each in siblings)

    def pong_now(self, uid: str) -> Pong | None:
        """Return the worker's last pong, with the time it has been unused carried on to now.

        A request in between would have ended the long-poll, so no news means that it is still unused.
        """
        pong = self.pongs.get(uid)
        if pong is None or pong.unused_for is None or pong.pending_requests:
            return pong
        since = self.monotonic() - self.heard.get(uid, self.monotonic())
        return pong.model_copy(update={"unused_for": pong.unused_for + since})

    def forget_worker(self, uid: str) -> None:
        """Drop what is known of a worker that is gone."""
        for table in (self.pongs, self.heard, self.health, self.quota, self.room_wanted, self.dismissed):
            table.pop(uid, None)
        self.deaf.discard(uid)
        self.service_taken.discard(uid)
        self.service_made.discard(uid)


#: Server-side filter of the pods that are ours.
POD_SELECTOR: Final = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"


def _groups(worker: WorkerView) -> tuple[Group, ...]:
    pool: Group = ("pool", worker.namespace, worker.spec.pool)
    return (pool, ("model", worker.model.uid)) if worker.model else (pool,)
