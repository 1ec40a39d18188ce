"""A cluster as plain objects: what is stored, and what the API server accepts and refuses.

Objects are the views that decisions take, and are never changed in place. A write names the object that it was
planned on; one that has been written since is a conflict, as it is by resourceVersion.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeVar

from modelpool_operator.api.modelpool import ModelPoolSpec
from modelpool_operator.api.modelworker import ModelWorkerSpec
from modelpool_operator.domain.errors import ConflictError, InvalidError, NotFoundError
from modelpool_operator.domain.objects import PoolView, WorkerView
from modelpool_operator.domain.podview import PodView
from unit.modelpool_operator.domain.scenes import MODEL, NOW
from unit.modelpool_operator.simulation.oracle import Oracle
from unit.modelpool_operator.simulation.process import Clock, Process

V = TypeVar("V", WorkerView, PoolView)

TEAM = "team-a"
POOL = "default"

Json = dict[str, Any]


class Sight(NamedTuple):
    """All objects as they were at one time."""

    workers: dict[str, WorkerView]
    pods: dict[str, PodView]
    pool: PoolView | None


@dataclass
class World:
    """The truth. ``counter`` numbers versions, uids and boots; it moves with every change and with nothing else."""

    oracle: Oracle = field(default_factory=Oracle)
    clock: Clock = field(default_factory=Clock)
    counter: int = 0
    workers: dict[str, WorkerView] = field(default_factory=dict)
    pods: dict[str, PodView] = field(default_factory=dict)
    pool: PoolView | None = None
    #: by uid of the pod
    processes: dict[str, Process] = field(default_factory=dict)
    #: names of workers whose pods an admission policy refuses
    unwelcome: frozenset[str] = frozenset()
    #: what has happened, in words; None: nobody listens
    journal: list[str] | None = None
    #: how everything was before each line of the journal
    past: list["Sight"] = field(default_factory=list)

    @property
    def now(self) -> datetime:
        """The time as the API server tells it."""
        return NOW + timedelta(seconds=self.clock.seconds)

    def copy(self) -> "World":
        """Return a world that goes its own way from here."""
        clock = Clock(self.clock.seconds)
        return World(
            self.oracle.copy(),
            clock,
            self.counter,
            dict(self.workers),
            dict(self.pods),
            self.pool,
            {uid: process.copy(clock) for uid, process in self.processes.items()},
            self.unwelcome,
        )

    def note(self, what: str) -> None:
        """Write into the journal what happens now."""
        if self.journal is not None:
            self.journal.append(f"{self.clock.seconds:5.0f} s  {what}")
            self.past.append(Sight(dict(self.workers), dict(self.pods), self.pool))

    def check(self) -> None:
        """Judge the state as it stands."""
        self.oracle.look(self.workers.values(), list(self.pods.values()), self.pool)

    def next(self) -> str:
        """Return a number that was never used."""
        self.counter += 1
        return f"{self.counter:05d}"

    # what users do

    def make_pool(self, memory: str, **spec: Any) -> None:
        """Create the pool."""
        self.note(f"somebody makes the pool: {memory}")
        parsed = ModelPoolSpec.model_validate({"memory": memory, **spec})
        self.pool = PoolView(TEAM, POOL, self.next(), self.next(), 1, False, (), parsed, {})

    def make_worker(self, name: str, **spec: Any) -> None:
        """Create a worker."""
        self.note(f"somebody makes worker {name}: {spec}")
        parsed = ModelWorkerSpec.model_validate({"pool": POOL, "model": MODEL, "memory": "1Gi", **spec})
        self.workers[name] = WorkerView(TEAM, name, self.next(), self.next(), 1, self.now, False, (), parsed, {})

    def change_worker(self, name: str, **spec: Any) -> None:
        """Change what may change of a worker's spec."""
        self.note(f"somebody changes worker {name}: {spec}")
        worker = self.workers[name]
        self._store(replace(worker, spec=worker.spec.model_copy(update=spec), generation=worker.generation + 1), worker)

    def change_pool(self, **spec: Any) -> None:
        """Change the pool's spec."""
        self.note(f"somebody changes the pool: {spec}")
        if self.pool is not None:
            changed = self.pool.spec.model_copy(update=spec)
            self.pool = replace(
                self.pool, spec=changed, generation=self.pool.generation + 1, resource_version=self.next()
            )

    def delete_worker(self, name: str) -> None:
        """Ask for a worker's deletion: it goes at once where it has no finalizer."""
        self.note(f"somebody deletes worker {name}")
        self._store(replace(self.workers[name], deleting=True), self.workers[name])

    def delete_pool(self) -> None:
        """Ask for the pool's deletion."""
        self.note("somebody deletes the pool")
        if self.pool is not None:
            gone = not self.pool.finalizers
            self.pool = None if gone else replace(self.pool, deleting=True, resource_version=self.next())
            self.counter += gone

    # what the operator's requests do

    def patch_worker(
        self, planned_on: WorkerView, *, status: Mapping[str, Any] | None = None, finalizers: tuple[str, ...] = ()
    ) -> WorkerView:
        """Merge into the status, or set the finalizers; return the object as it is then."""
        there = self._as_planned(self.workers.get(planned_on.name), planned_on)
        if status is None:
            self.note(f"{there.name}: finalizers {finalizers}")
            return self._store(replace(there, finalizers=finalizers), there)
        after = replace(there, status=merged(there.status, status))
        self.note(f"{there.name}: {there.status.get('state')} → {after.status['state']} {after.status.get('reason')}")
        self.oracle.worker_written(there, after)
        return self._store(after, there)

    def _as_planned(self, there: V | None, planned_on: V) -> V:
        """Return the object that a write was planned on, where it is still that one."""
        if there is None:
            raise NotFoundError(planned_on.name, 404)
        if there.resource_version != planned_on.resource_version:
            self.note(f"a write to {planned_on.name} is a conflict")
            raise ConflictError(planned_on.name, 409)
        return there

    def patch_pool(
        self, planned_on: PoolView, *, status: Mapping[str, Any] | None = None, finalizers: tuple[str, ...] = ()
    ) -> PoolView:
        """Merge into the pool's status, or set its finalizers; return the object as it is then."""
        there = self._as_planned(self.pool, planned_on)
        if status is None:
            self.note(f"pool: finalizers {finalizers}")
            after = replace(there, finalizers=finalizers, resource_version=self.next())
            self.pool = None if after.deleting and not finalizers else after
            return after
        after = replace(there, status=merged(there.status, status))
        if after.status != there.status:
            self.note(f"pool: ledger {[(entry.name, entry.pod_uid) for entry in after.ledger.values()]}")
            self.oracle.pool_written(there, after, self.pods.values())
            self.pool = after = replace(after, resource_version=self.next())
        return after

    def make_pod(self, worker: WorkerView) -> PodView:
        """Create a worker's gated pod; the name may be taken, and a policy may refuse it."""
        if worker.name in self.unwelcome:
            raise InvalidError(worker.pod_name, 422)
        if worker.pod_name in self.pods:
            raise ConflictError(worker.pod_name, 409)
        pod = PodView(
            namespace=TEAM,
            name=worker.pod_name,
            uid=f"pod-{self.next()}",
            resource_version=self.next(),
            owner_uid=worker.uid,
            phase="Pending",
            reason="",
            message="",
            gated=True,
            other_gates=(),
            gate_lifted=None,
            scheduled=False,
            scheduling_reason="SchedulingGated",
            scheduling_message="",
            ready=False,
            deleting=False,
            disruption="",
            node="",
            ip="",
            container=None,
            init_failure="",
        )
        self.note(f"pod {pod.name} is made, {pod.uid}")
        self.pods[pod.name] = pod
        return pod

    def lift_gate(self, planned_on: PodView) -> PodView:
        """Take the quota gate off the pod, if it is the very one that was seen."""
        there = self.pods.get(planned_on.name)
        if there is None:
            raise NotFoundError(planned_on.name, 404)
        if (there.uid, there.resource_version) != (planned_on.uid, planned_on.resource_version):
            raise ConflictError(planned_on.name, 409)
        self.note(f"the gate of {there.name} is lifted")
        self.oracle.gate_lifted(there, self.pool)
        return self.change_pod(there.name, gated=False, gate_lifted=self.now, scheduling_reason="")

    def delete_pod(self, planned_on: PodView) -> None:
        """Delete the pod with this uid for the operator; one that is gone or another is no error."""
        there = self.pods.get(planned_on.name)
        if there is not None and there.uid == planned_on.uid:
            owner = next((worker for worker in self.workers.values() if worker.uid == there.owner_uid), None)
            self.note(f"the operator deletes pod {there.name}")
            self.oracle.pod_deleted(there, owner, self.processes.get(there.uid))
            self.remove_pod(there.name)

    # what happens to pods, whoever does it

    def change_pod(self, name: str, **changes: Any) -> PodView:
        """Write a pod's fields."""
        self.pods[name] = pod = replace(self.pods[name], **changes, resource_version=self.next())
        return pod

    def remove_pod(self, name: str) -> None:
        """Ask for a pod's deletion: it goes at once where no node has it, else when the node says so."""
        if not self.pods[name].node:
            self.pod_gone(name)
        elif not self.pods[name].deleting:
            self.change_pod(name, deleting=True)

    def pod_gone(self, name: str) -> None:
        """Take the pod object away, and its process with it."""
        self.note(f"pod {name} is gone")
        self.counter += 1
        self.processes.pop(self.pods.pop(name).uid, None)

    def _store(self, after: WorkerView, before: WorkerView) -> WorkerView:
        if after == before:
            return before
        stored = replace(after, resource_version=self.next())
        if stored.deleting and not stored.finalizers:
            del self.workers[stored.name]
        else:
            self.workers[stored.name] = stored
        return stored


def merged(document: Any, patch: Any) -> Any:
    """Apply a JSON merge patch (RFC 7386)."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(document) if isinstance(document, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result
