"""The reconcile of one Model: see, plan, carry out. It makes workers, and nobody else does."""

from collections.abc import Callable
from typing import Any, Final

import structlog

from modelpool_operator.api import names
from modelpool_operator.domain.errors import ApiError, ConflictError, InvalidError, NotFoundError
from modelpool_operator.domain.model_plan import ModelPlan, plan_model
from modelpool_operator.domain.objects import ModelView
from modelpool_operator.kube import paths
from modelpool_operator.kube.client import KubeClient
from modelpool_operator.metrics import OperatorMetrics
from modelpool_operator.runtime.cache import Key
from modelpool_operator.runtime.knowledge import Knowledge

_log = structlog.get_logger(__name__)
_TRIES: Final = 4
#: Counts by state change with every request; alone they are written at most this often, seconds.
_GAUGE_PAUSE: Final = 10.0


class ModelReconciler:
    """Carries plans out. Status writes carry the resourceVersion that they were planned on."""

    def __init__(
        self,
        client: KubeClient,
        knowledge: Knowledge,
        metrics: OperatorMetrics,
        notify: Callable[[Key], None],
        again: Callable[[Key, float], None],
        monotonic: Callable[[], float],
    ) -> None:
        self._client = client
        self._knowledge = knowledge
        self._metrics = metrics
        self._notify = notify
        self._again = again
        self._monotonic = monotonic
        self._gauged: dict[str, float] = {}

    async def reconcile(self, key: Key) -> None:
        """Bring one Model as far as it can go now."""
        model = self._knowledge.models.get(key)
        for _ in range(_TRIES):
            if model is None:
                return
            try:
                await self._once(model)
            except (ConflictError, InvalidError) as error:
                self._metrics.conflicts.labels("model").inc()
                _log.info("model.conflict", model=key, status=error.status)
                found = await self._read(key)
                if isinstance(error, InvalidError) and found and found.resource_version == model.resource_version:
                    raise
                model = found
            except NotFoundError:
                if await self._read(key) is not None:
                    raise
                return
            else:
                return
        raise ConflictError(f"model {key} changed {_TRIES} times while its status was being written", 409)

    def forget(self, model: ModelView) -> None:
        """Drop all that is kept for a Model that is gone."""
        self._knowledge.keeps.pop(model.uid, None)
        self._gauged.pop(model.uid, None)

    async def _once(self, model: ModelView) -> None:
        plan = self._plan(model)
        if plan.create or plan.remove:
            # a worker more or less is decided on what is, not on what was last heard
            fresh = await self._read(model.key)
            if fresh is None:
                return
            model = fresh
            await self._list_workers(model)
            plan = self._plan(model)
        made = await self._create(model, plan)
        if made:
            plan = self._plan(model)
        model = await self._write_status(model, plan)
        self._knowledge.demands.taken(model.key, plan.heard)
        self._tell(model, plan)
        for name, changes in plan.change.items():
            await self._patch_worker(model, name, changes)
        for name in plan.shutdown:
            await self._patch_worker(model, name, {"shutdown": True})
        for name, uid in plan.remove:
            await self._client.delete(paths.workers(model.namespace, name), uid)
        demands = self._knowledge.demands
        wakes = [wait for wait in (plan.wake_after, demands.lapses_in(model.key), demands.settles_in()) if wait]
        if wakes:
            self._again(model.key, max(0.05, min(wakes)))

    def _plan(self, model: ModelView) -> ModelPlan:
        return plan_model(self._knowledge.see_model(model), self._client.clock.now())

    async def _create(self, model: ModelView, plan: ModelPlan) -> int:
        """Make workers; one that is there already was made by the other operator, or before a crash."""
        for body in plan.create:
            name = body["metadata"]["name"]
            try:
                made = await self._client.create(paths.workers(model.namespace), body)
            except ConflictError:
                made = await self._client.get(paths.workers(model.namespace, name))
                if all(owner["uid"] != model.uid for owner in made["metadata"].get("ownerReferences") or ()):
                    _log.warning("model.name-taken", model=model.key, worker=name)
                    await self._skip(model, int(name.rpartition("-")[2]))
                    raise
            self._knowledge.workers.observe(made)
            self._notify((model.namespace, name))
            _log.info("model.worker-made", model=model.key, worker=name)
        return len(plan.create)

    async def _skip(self, model: ModelView, number: int) -> None:
        """Pass over a number whose name somebody else's worker has."""
        await self._patch_status(model, {"serial": number})

    async def _write_status(self, model: ModelView, plan: ModelPlan) -> ModelView:
        now = self._monotonic()
        due = self._gauged.get(model.uid, -_GAUGE_PAUSE) + _GAUGE_PAUSE
        if not plan.status and plan.gauges and now < due:
            self._again(model.key, due - now)
            return model
        if not (plan.status or plan.gauges):
            return model
        if plan.gauges:
            self._gauged[model.uid] = now
        return await self._patch_status(model, {**plan.status, **plan.gauges})

    async def _patch_status(self, model: ModelView, status: dict[str, Any]) -> ModelView:
        body = {"metadata": {"resourceVersion": model.resource_version}, "status": status}
        obj = await self._client.patch(paths.models(model.namespace, model.name, "status"), body)
        return self._knowledge.models.take(obj)

    def _tell(self, model: ModelView, plan: ModelPlan) -> None:
        """Have those looked at anew whose staying or going is decided otherwise than before."""
        before = self._knowledge.keeps.get(model.uid)
        self._knowledge.keeps[model.uid] = plan.keep
        for worker in self._knowledge.workers_of_model(model):
            dismissed = plan.dismiss.get(worker.uid)
            kept_before = before is None or worker.uid in before
            same = kept_before == (worker.uid in plan.keep) and self._knowledge.dismissed.get(worker.uid) == dismissed
            if same and "keepAliveSeconds" not in plan.status:
                continue
            if dismissed is None:
                self._knowledge.dismissed.pop(worker.uid, None)
            else:
                self._knowledge.dismissed[worker.uid] = dismissed
            self._notify(worker.key)

    async def _patch_worker(self, model: ModelView, name: str, spec: dict[str, Any]) -> None:
        known = self._knowledge.workers.get((model.namespace, name))
        if known is None:
            return
        body = {"metadata": {"uid": known.uid, "resourceVersion": known.resource_version}, "spec": spec}
        try:
            self._knowledge.workers.observe(await self._client.patch(paths.workers(model.namespace, name), body))
        except ApiError as error:
            if not isinstance(error, ConflictError | NotFoundError | InvalidError):
                raise
            self._again(model.key, 0.5)  # it has moved meanwhile: its own news may be on their way
            return
        self._notify(known.key)

    async def _list_workers(self, model: ModelView) -> None:
        """Take in the workers that there are; one that is gone is only missed later, by its own news or the sweep."""
        path, selector = paths.workers(model.namespace), f"{names.LABEL_MODEL}={model.name}"
        for obj in await self._client.list_all(path, selector):
            self._knowledge.workers.observe(obj, tell=False)

    async def _read(self, key: Key) -> ModelView | None:
        try:
            obj = await self._client.get(paths.models(*key))
        except NotFoundError:
            known = self._knowledge.models.get(key)
            if known is not None and self._knowledge.models.forget(key, known.uid):
                self.forget(known)
            return None
        return self._knowledge.models.take(obj)
