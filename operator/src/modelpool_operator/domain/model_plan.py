"""What becomes of a Model now: workers to make, to let go, to keep, to change and to remove, and what its status says.

Pure: the Model, its workers and their pongs, and the API server's time, in; data out. How many there shall be is
`scaling`'s to say.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final

from modelpool_api import FLIP_STATES, LIVE_STATES, Pong, WorkerState
from modelpool_operator.api import names
from modelpool_operator.api.cel import MUTABLE_FIELDS
from modelpool_operator.api.model import MAX_KEEP_ALIVE_SECONDS, PINNED
from modelpool_operator.api.names import Reason
from modelpool_operator.domain.model_status import EPOCH, ends_of, read_back_off, status_of
from modelpool_operator.domain.objects import ModelView, WorkerView
from modelpool_operator.domain.scaling import BackOff, Member, Scale, ScalePlan, count_failures, plan_scale

#: A worker that has been Ready for so long proves that its template works.
PROVEN_AFTER: Final = timedelta(seconds=60)
#: An uninstall says again and again that no worker is to be made; its word holds for so long.
DRAIN_HOLDS: Final = timedelta(seconds=120)
#: So many of a Model's workers that have ended are kept to be looked at, and each at most for its retention.
_ENDED_KEPT: Final = 5


@dataclass(frozen=True, slots=True)
class Demand:
    """What requests want of a Model: a worker now; or that its workers stay, seconds, as a request has asked lately.

    Not ``known``: this operator has not listened for long enough to know that nobody wants one.
    """

    wanted: bool = False
    keep_alive: int | None = None
    known: bool = True


@dataclass(frozen=True)
class ModelSeen:
    """All that a decision about one Model may depend on; ``workers`` are its own, whatever they are doing."""

    model: ModelView
    workers: tuple[WorkerView, ...] = ()
    #: the workers' last words by uid
    pongs: Mapping[str, Pong] = field(default_factory=dict)
    demand: Demand = Demand()
    #: seconds that a worker which has ended is kept
    retention: float = 300.0

    @cached_property
    def template(self) -> str:
        """Hash of the template that workers are made from now."""
        return template_hash(self.model)

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """The workers as `scaling` sees them."""
        return tuple(_member(worker, self.pongs.get(worker.uid)) for worker in self.workers)


@dataclass(frozen=True)
class ModelPlan:
    """One pass over one Model. Whom it makes is decided again on a fresh list before it is done."""

    #: manifests of the workers to make
    create: tuple[dict[str, Any], ...] = ()
    #: names of workers that only wait and are told to stop
    shutdown: tuple[str, ...] = ()
    #: uids of workers that are asked to go once they have nothing to do, and why
    dismiss: Mapping[str, Reason] = field(default_factory=dict)
    #: uids of workers that neither idleness nor the room of others may end
    keep: frozenset[str] = frozenset()
    #: by worker's name, fields of its spec to change
    change: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    #: name and uid of workers that have ended and are removed
    remove: tuple[tuple[str, str], ...] = ()
    #: fields of status to write; None removes one
    status: Mapping[str, Any] = field(default_factory=dict)
    #: numbers of workers by state, which may be written later: they change with every request
    gauges: Mapping[str, Any] = field(default_factory=dict)
    #: the word of a request, of how long to stay, that this plan goes by
    heard: int | None = None
    wake_after: float | None = None


def plan_model(seen: ModelSeen, now: datetime) -> ModelPlan:
    """Decide for one Model."""
    model, members = seen.model, seen.members
    if model.deleting:  # its workers go with it
        return ModelPlan()
    back_off = count_failures(
        read_back_off(model.status.get("backOff")), seen.template, ends_of(seen.workers), proven=_proven(seen, now)
    )
    scale = _scale(model, now)
    plan = plan_scale(scale, seen.template, members, back_off, now, demand=seen.demand.wanted)
    keep_alive = _keep_alive(seen)
    by_name = {worker.name: worker for worker in seen.workers}
    waiting = {member.name for member in members if member.state is WorkerState.SPAWNING and not member.charged}
    serial = _serial(seen)
    fields, gauges = status_of(
        model, seen.workers, members, plan, back_off, template=seen.template, keep_alive=keep_alive, now=now
    )
    return ModelPlan(
        create=tuple(build_worker(model, serial + number, seen.template) for number in range(1, plan.create + 1)),
        shutdown=tuple(name for name in plan.let_go if name in waiting) if seen.demand.known else (),
        dismiss={
            by_name[name].uid: Reason.SCALED_DOWN if by_name[name].template == seen.template else Reason.REPLACED
            for name in plan.let_go
            if name not in waiting
        },
        keep=plan.keep if seen.demand.known else frozenset(member.uid for member in members),
        change=_changes(seen),
        remove=tuple(_removed(seen, now)),
        status={**fields, "serial": serial} if serial != int(model.status.get("serial") or 0) else fields,
        gauges=gauges,
        heard=seen.demand.keep_alive,
        wake_after=_wake(seen, plan, back_off, now),
    )


def template_hash(model: ModelView) -> str:
    """Return the hash of what makes other workers of a Model necessary; what can be changed in place is no part of it.

    A field that is as it is by default counts like one that is not there: a version that knows more fields makes no
    other workers.
    """
    spec = model.spec.worker.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    kept = {name: value for name, value in spec.items() if name not in MUTABLE_FIELDS}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:10]


def build_worker(model: ModelView, number: int, template: str) -> dict[str, Any]:
    """Return the manifest of a Model's worker of this number: it goes with its Model, and has no Service."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.MODEL_WORKER,
        "metadata": {
            "name": f"{model.name}-{number}",
            "namespace": model.namespace,
            "labels": {names.LABEL_MODEL: model.name, names.LABEL_TEMPLATE: template},
            "ownerReferences": [
                {
                    "apiVersion": names.API_VERSION,
                    "kind": names.MODEL,
                    "name": model.name,
                    "uid": model.uid,
                    "controller": True,
                }
            ],
        },
        "spec": {**model.spec.worker.to_api(), "service": False},
    }


def _member(worker: WorkerView, pong: Pong | None) -> Member:
    state = worker.state or WorkerState.SPAWNING
    at_work = pong is None or pong.state not in FLIP_STATES
    return Member(
        uid=worker.uid,
        name=worker.name,
        state=state,
        template=worker.template,
        created=worker.created or EPOCH,
        pending=int(worker.status.get("pendingRequests") or 0) if pong is None else pong.pending_requests,
        unused_for=None if at_work or pong is None else pong.unused_for,
        leaving=worker.deleting or worker.spec.shutdown,
        charged=worker.had_pod or state is not WorkerState.SPAWNING,
    )


def _scale(model: ModelView, now: datetime) -> Scale:
    spec = model.spec
    drained = model.drained is not None and now < model.drained + DRAIN_HOLDS
    return Scale(
        min_replicas=spec.min_replicas,
        max_replicas=0 if drained else spec.max_replicas,
        replicas=spec.replicas,
        target_pending=spec.target_pending,
        pinned=spec.worker.eviction == "Never",
    )


def _keep_alive(seen: ModelSeen) -> int | None:
    """Return the last word of a request, for as long as there is a worker that it can be about."""
    asked = seen.demand.keep_alive
    if not any(member.here for member in seen.members):
        return None
    if asked is None:
        return seen.model.keep_alive
    return PINNED if asked < 0 else min(asked, MAX_KEEP_ALIVE_SECONDS)


def _proven(seen: ModelSeen, now: datetime) -> datetime | None:
    """Return when a worker of the present template had last served for a while without an end."""
    served = [
        ready + PROVEN_AFTER
        for worker in seen.workers
        if worker.state in FLIP_STATES
        and worker.template == seen.template
        and (ready := worker.time("readyTime")) is not None
    ]
    return max((moment for moment in served if moment <= now), default=None)


def _serial(seen: ModelSeen) -> int:
    """Return the highest number that is in use; a worker that status does not know of yet has been made by us."""
    used = [int(seen.model.status.get("serial") or 0)]
    for worker in seen.workers:
        number = worker.name.removeprefix(f"{seen.model.name}-")
        if number.isascii() and number.isdigit():
            used.append(int(number))
    return max(used)


def _changes(seen: ModelSeen) -> dict[str, dict[str, Any]]:
    """Return what the workers' specs have to take over of the Model's, of that which may change."""
    wanted = seen.model.spec.worker.to_api()
    found: dict[str, dict[str, Any]] = {}
    for worker in seen.workers:
        if worker.state not in LIVE_STATES or worker.deleting:
            continue
        has = worker.spec.to_api()
        own = [name for name in MUTABLE_FIELDS if name != "shutdown" and has.get(name) != wanted.get(name)]
        if own:
            found[worker.name] = {name: wanted.get(name) for name in own}
    return found


def _removed(seen: ModelSeen, now: datetime) -> Iterable[tuple[str, str]]:
    """Name the workers that have ended and have been there long enough to be looked at; the latest stay longest."""
    ended = [worker for worker in seen.workers if worker.state is WorkerState.DEAD and not worker.deleting]
    ended.sort(key=lambda worker: (worker.since or now, worker.name), reverse=True)
    for place, worker in enumerate(ended):
        if place >= _ENDED_KEPT or now >= (worker.since or now) + timedelta(seconds=seen.retention):
            yield worker.name, worker.uid


def _wake(seen: ModelSeen, plan: ScalePlan, back_off: BackOff | None, now: datetime) -> float | None:
    """Return the seconds after which time alone changes something."""
    moments: list[datetime] = []
    if plan.held and back_off is not None and back_off.retry_at is not None:
        moments.append(back_off.retry_at)
    if back_off is not None:
        ready = [worker.time("readyTime") for worker in seen.workers if worker.state in FLIP_STATES]
        moments += [moment + PROVEN_AFTER for moment in ready if moment is not None]
    moments += [
        worker.since + timedelta(seconds=seen.retention)
        for worker in seen.workers
        if worker.state is WorkerState.DEAD and worker.since is not None
    ]
    if seen.model.drained is not None:
        moments.append(seen.model.drained + DRAIN_HOLDS)
    waits = [(moment - now).total_seconds() for moment in moments]
    return min((wait for wait in waits if wait > 0), default=None)
