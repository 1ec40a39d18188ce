"""The reconcile of one ModelPool: the only writer of its ledger."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

import structlog

from modelpool_api import WorkerState
from modelpool_operator.api import names
from modelpool_operator.api.names import Reason
from modelpool_operator.domain import admission
from modelpool_operator.domain.errors import (
    ApiError,
    ConflictError,
    DeniedError,
    InvalidError,
    NotFoundError,
)
from modelpool_operator.domain.ledger import LedgerChange, counts_differ, status_patch
from modelpool_operator.domain.objects import Entry, PoolView, WorkerView
from modelpool_operator.domain.pods import ImageSettings, build_pod
from modelpool_operator.domain.podview import PodView
from modelpool_operator.domain.room import Candidate
from modelpool_operator.domain.rules import rules_for
from modelpool_operator.kube import paths
from modelpool_operator.kube.client import KubeClient
from modelpool_operator.metrics import OperatorMetrics
from modelpool_operator.runtime.cache import Key
from modelpool_operator.runtime.knowledge import Knowledge
from modelpool_operator.runtime.tokens import Tokens

_log = structlog.get_logger(__name__)
#: Pods created at the same time.
_PARALLEL: Final = 16
_TRIES: Final = 6
#: Counts that no ledger write has brought up to date are written at most this often.
_RECOUNT_SECONDS: Final = 10.0
#: The token Secret of a pool in use is looked after this often.
_SECRET_SECONDS: Final = 30.0
#: While somebody waits for room, time alone may make others ready to go: they are looked at this often, seconds.
_RELOOK_SECONDS: Final = 2.0


@dataclass
class _Confirmed:
    """What reads of the API server have confirmed for one write of the ledger."""

    released: list[Entry] = field(default_factory=list)
    found: list[tuple[WorkerView, PodView]] = field(default_factory=list)
    lost: int = 0


class PoolReconciler:
    """Reserves, releases and repairs; each write is planned on the resourceVersion it carries."""

    def __init__(
        self,
        client: KubeClient,
        knowledge: Knowledge,
        tokens: Tokens,
        metrics: OperatorMetrics,
        images: ImageSettings,
        notify: Callable[[Key], None],
        again: Callable[[Key, float], None],
        monotonic: Callable[[], float],
    ) -> None:
        self._client = client
        self._knowledge = knowledge
        self._tokens = tokens
        self._metrics = metrics
        self._images = images
        self._notify = notify
        self._again = again
        self._monotonic = monotonic
        self._recounted: dict[Key, float] = {}
        #: names by uid in each pool's ledger, as the workers were told of it
        self._told: dict[Key, dict[str, str]] = {}
        self._limit = asyncio.Semaphore(_PARALLEL)

    async def reconcile(self, key: Key) -> None:
        """Bring one pool's ledger up to date and serve its line."""
        pool = self._knowledge.pools.get(key)
        for _ in range(_TRIES):
            if pool is None:
                self._tokens.forget(key)
                self._told.pop(key, None)
                return
            try:
                await self._once(pool)
            except (ConflictError, InvalidError) as error:
                self._metrics.conflicts.labels("pool").inc()
                _log.info("pool.conflict", pool=key, status=error.status)
                read = await self._read(key)
                if isinstance(error, InvalidError) and read and read.resource_version == pool.resource_version:
                    raise
                pool = read
                continue
            except NotFoundError:
                if await self._read(key) is not None:
                    raise
                pool = None
                continue
            return
        raise ConflictError(f"pool {key} changed {_TRIES} times while its ledger was being written", 409)

    async def _once(self, pool: PoolView) -> None:
        # without workers there is nothing to guard: an uninstalled operator's finalizer would hold the pool for ever
        alive = [worker for worker in self._knowledge.workers_of((pool.namespace, pool.name)) if not worker.ended]
        if (pool.ledger or alive) and not pool.deleting and names.POOL_FINALIZER not in pool.finalizers:
            pool = await self._patch_finalizers(pool, [*pool.finalizers, names.POOL_FINALIZER])
        began = self._monotonic()
        workers = self._knowledge.workers_of((pool.namespace, pool.name))
        confirmed = await self._confirm(pool, workers)
        by_uid = {worker.uid: worker for worker in workers}
        gone = {entry.uid for entry in confirmed.released}
        holders = [
            *(self._holder(pool, entry, by_uid) for entry in pool.ledger.values() if entry.uid not in gone),
            *(self._candidate(worker, pool, worker.state or WorkerState.SPAWNING) for worker, _ in confirmed.found),
        ]
        # a worker whose old entry goes in this very write cannot get a new one in it
        found = {worker.uid for worker, _ in confirmed.found}
        waiting = [worker for worker in workers if admission.waits_for_room(worker, pool) and worker.uid not in found]
        refused: dict[str, admission.Refusal] = {}
        while True:  # one whose pod the API server refuses holds nobody up; pods made already are found again
            line = [worker for worker in waiting if worker.uid not in refused]
            decided = admission.admit(pool, line, holders)
            made, newly = await self._create_pods(pool, decided.grants)
            refused |= newly
            if not newly:
                break
        # a worker that was told to go while its pod was made has no use for the room any more
        reserved = [(worker, uid) for worker, uid in made if self._still_waits(worker, pool)]
        change = LedgerChange(tuple(confirmed.released), tuple(reserved), tuple(confirmed.found), confirmed.lost)
        patch = status_patch(pool, change, workers, self._client.clock.now(), recount=self._may_recount(pool, workers))
        if patch is not None:
            body = {"metadata": {"resourceVersion": pool.resource_version}, "status": patch}
            obj = await self._client.patch(paths.pools(pool.namespace, pool.name, "status"), body)
            pool = self._knowledge.pools.take(obj)
        self._after(pool, change, began)
        in_line = {reason for reason, _ in decided.refusals.values()} & {Reason.WAITING_FOR_QUOTA}
        if in_line and any(not holder.leaving for holder in holders):
            self._again((pool.namespace, pool.name), _RELOOK_SECONDS)
        self._say({**decided.refusals, **refused}, waiting, [*decided.victims, *admission.shrink(pool, holders)], pool)
        if pool.deleting and not pool.ledger and names.POOL_FINALIZER in pool.finalizers:
            await self._patch_finalizers(pool, [name for name in pool.finalizers if name != names.POOL_FINALIZER])

    async def _confirm(self, pool: PoolView, workers: Iterable[WorkerView]) -> _Confirmed:
        """Find what the ledger has too much or too little; the caches nominate, a read of the pod decides."""
        confirmed = _Confirmed()
        by_uid = {worker.uid: worker for worker in workers}
        for entry in pool.ledger.values():
            known = self._knowledge.pods.get((pool.namespace, entry.pod_name))
            if known is not None and known.uid == entry.pod_uid:
                continue
            pod = await self._read_pod((pool.namespace, entry.pod_name))
            if pod is None or pod.uid != entry.pod_uid:
                confirmed.released.append(entry)
                confirmed.lost += entry.uid not in by_uid
        for worker in workers:
            known = self._knowledge.pod_of(worker)
            if known is None or known.gated or worker.uid in pool.ledger:
                continue
            pod = await self._read_pod((worker.namespace, worker.pod_name))
            if pod is not None and pod.owner_uid == worker.uid and not pod.gated:
                confirmed.found.append((worker, pod))
        return confirmed

    async def _create_pods(
        self, pool: PoolView, grants: Iterable[WorkerView]
    ) -> tuple[list[tuple[WorkerView, str]], dict[str, admission.Refusal]]:
        """Make the gated pods of the workers that have room; one that cannot be made gets no reservation."""
        granted = [worker for worker in grants if names.WORKER_FINALIZER in worker.finalizers]
        if not await self._has_token(pool, max_age=0.0 if granted else _SECRET_SECONDS) or not granted:
            return [], {}
        reserved: list[tuple[WorkerView, str]] = []
        refused: dict[str, admission.Refusal] = {}

        async def make(worker: WorkerView) -> None:
            async with self._limit:
                try:
                    pod = await self._gated_pod(pool, worker)
                except (DeniedError, InvalidError) as error:
                    # admission refused it: quota of the namespace, Pod Security, a policy; not ours to argue with
                    refused[worker.uid] = (Reason.CONFIG, f"the API server refuses the pod: {error}"[:1024])
                    return
            if pod is not None:
                reserved.append((worker, pod.uid))

        results = await asyncio.gather(*(make(worker) for worker in granted), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):  # must not hold up a release
                _log.warning("pod.not-created", pool=(pool.namespace, pool.name), error=str(result)[:500])
                self._again((pool.namespace, pool.name), 2.0)
        return reserved, refused

    def _may_recount(self, pool: PoolView, workers: Sequence[WorkerView]) -> bool:
        """Whether the counts of workers may be written by themselves: they are true again within some seconds."""
        key, now = (pool.namespace, pool.name), self._monotonic()
        if not counts_differ(pool, workers):
            return False
        due = self._recounted.get(key, -_RECOUNT_SECONDS) + _RECOUNT_SECONDS
        if now < due:
            self._again(key, due - now)
            return False
        self._recounted[key] = now
        return True

    def _still_waits(self, worker: WorkerView, pool: PoolView) -> bool:
        known = self._knowledge.workers.get(worker.key)
        return known is not None and known.uid == worker.uid and admission.waits_for_room(known, pool)

    async def _has_token(self, pool: PoolView, *, max_age: float) -> bool:
        """Whether pods of this pool could start; trouble with the Secret must not hold up a release."""
        # gateways mount it, and what is there before they are is there at once
        if not pool.ledger and max_age and not self._images.closed_inference:
            return True
        try:
            await self._tokens.ensure(pool, max_age=max_age)
        except ApiError as error:
            key = (pool.namespace, pool.name)
            _log.warning("token.unavailable", pool=key, error=str(error)[:500])
            self._again(key, 2.0)
            return False
        return True

    async def _gated_pod(self, pool: PoolView, worker: WorkerView) -> PodView | None:
        try:
            obj = await self._client.create(paths.pods(worker.namespace), build_pod(worker, pool, self._images))
        except ConflictError:  # made before a crash, or by the other operator
            pod = await self._read_pod((worker.namespace, worker.pod_name))
            mine = pod is not None and pod.owner_uid == worker.uid and pod.gated and not pod.deleting
            return pod if mine else None
        return self._knowledge.pods.take(obj, tell=False)

    def _after(self, pool: PoolView, change: LedgerChange, began: float) -> None:
        """Count, log, and wake the workers that the write concerns."""
        names_by_uid = {worker.uid: worker.name for worker, _ in change.reserved}
        for entry in change.released:
            names_by_uid[entry.uid] = entry.name
            self._metrics.release_seconds.observe(self._monotonic() - began)
        for worker, _ in change.found:
            names_by_uid[worker.uid] = worker.name
        if repairs := len(change.found) + change.lost:
            self._metrics.repairs.inc(repairs)
            _log.warning("ledger.repaired", pool=(pool.namespace, pool.name), found=len(change.found), lost=change.lost)
        if not change.empty:
            _log.info(
                "ledger.written",
                pool=(pool.namespace, pool.name),
                reserved=[worker.name for worker, _ in change.reserved],
                released=[entry.name for entry in change.released],
                memory_mib=pool.reserved.memory_mib,
                gpus=pool.reserved.gpus,
            )
        # by the ledger as it is, not by this write: the answer to the one before may have been lost
        key, held = (pool.namespace, pool.name), {entry.uid: entry.name for entry in pool.ledger.values()}
        told, self._told[key] = self._told.get(key, {}), held
        names_by_uid |= {uid: told.get(uid) or held[uid] for uid in told.keys() ^ held.keys()}
        for uid, name in names_by_uid.items():
            self._knowledge.quota.pop(uid, None)
            self._notify((pool.namespace, name))

    def _say(
        self,
        refusals: dict[str, admission.Refusal],
        waiting: Iterable[WorkerView],
        victims: Iterable[Candidate],
        pool: PoolView,
    ) -> None:
        """Let waiting workers know why, and ask for the room of others."""
        for worker in waiting:
            refusal = refusals.get(worker.uid)
            if refusal is not None and self._knowledge.quota.get(worker.uid) != refusal:
                self._knowledge.quota[worker.uid] = refusal
                self._notify(worker.key)
        wanted = list(victims)
        for uid in pool.ledger.keys() - {victim.uid for victim in wanted}:
            self._knowledge.room_wanted.pop(uid, None)  # nobody needs its room any more
        for victim in wanted:
            self._knowledge.room_wanted[victim.uid] = Reason.ROOM_EVICTION
            self._notify((pool.namespace, victim.name))

    def _holder(self, pool: PoolView, entry: Entry, by_uid: Mapping[str, WorkerView]) -> Candidate:
        worker = by_uid.get(entry.uid)
        if worker is None:  # its release is only a matter of its pod
            return Candidate(entry.uid, entry.name, WorkerState.DEAD, entry.amount, 0, None, 0, True, False, 0.0)
        candidate = self._candidate(worker, pool, worker.state or WorkerState.SPAWNING)
        return replace(candidate, amount=entry.amount)

    def _candidate(self, worker: WorkerView, pool: PoolView, state: WorkerState) -> Candidate:
        pong, rules = self._knowledge.pong_now(worker.uid), rules_for(worker.spec, pool.spec)
        ready, now = worker.time("readyTime"), self._client.clock.now()
        return Candidate(
            uid=worker.uid,
            name=worker.name,
            state=state,
            amount=worker.need,
            priority=worker.spec.priority,
            unused_for=pong.unused_for if pong else None,
            pending=pong.pending_requests if pong else 0,
            pinned=worker.spec.eviction == "Never" or self._knowledge.kept(worker),
            young=ready is None or now < ready + timedelta(seconds=rules.min_residency),
            idle_timeout=rules.idle_timeout,
        )

    async def _patch_finalizers(self, pool: PoolView, finalizers: list[str]) -> PoolView:
        body = {"metadata": {"uid": pool.uid, "resourceVersion": pool.resource_version, "finalizers": finalizers}}
        obj = await self._client.patch(paths.pools(pool.namespace, pool.name), body)
        return self._knowledge.pools.take(obj)

    async def _read(self, key: Key) -> PoolView | None:
        try:
            obj = await self._client.get(paths.pools(*key))
        except NotFoundError:
            self._knowledge.pools.forget(key)
            return None
        return self._knowledge.pools.take(obj)

    async def _read_pod(self, key: Key) -> PodView | None:
        try:
            obj = await self._client.get(paths.pods(*key))
        except NotFoundError:
            self._knowledge.pods.forget(key)
            return None
        return self._knowledge.pods.take(obj, tell=False)
