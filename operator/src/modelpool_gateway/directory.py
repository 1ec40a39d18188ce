"""Which workers serve which model, and which of them is asked next: memory only, no request to anybody.

Fed by a watch of ModelWorkers; what this gateway itself has in flight is known at every instant, what the others have
is known as far as the workers' status tells it.
"""

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from modelpool_api import WorkerState, parse_state
from modelpool_gateway.breaker import Breaker
from modelpool_operator.api.names import LABEL_MODEL, LABEL_TEMPLATE

#: States in which a worker takes requests.
SERVING: Final = frozenset({WorkerState.READY, WorkerState.PROCESSING, WorkerState.IDLE})
#: States on the way there.
COMING: Final = frozenset({WorkerState.SPAWNING, WorkerState.LOADING})

Key = tuple[str, str]
#: What a worker that will not serve again says of its state; nothing: it is another one.
_ONE_WAY: Final = frozenset({b"", WorkerState.EVICTING.encode()})
_NOBODY: Final[Mapping[str, "Worker"]] = {}


@dataclass(slots=True)
class Worker:
    """A worker as the watch shows it, and what this gateway knows of it besides."""

    uid: str
    namespace: str
    name: str
    model: str
    state: WorkerState | None
    endpoint: str
    reason: str
    message: str
    version: int
    #: requests that its status tells of, all gateways' and all other clients'
    told_pending: int = 0
    #: told to stop, or deleted
    leaving: bool = False
    in_flight: int = 0
    #: it has refused as one that goes does, before the watch has said so
    gone: bool = False
    chosen: int = 0
    breaker: Breaker = field(default_factory=Breaker)
    pool: str = ""
    #: name of the Model object that it belongs to
    owner: str = ""
    capability: str = ""
    #: RFC 3339
    created: str = ""
    #: how often its container was started again, and which process of it was heard last
    restarts: int = 0
    boot: str = ""
    #: hash of the template that it was made from
    template: str = ""
    #: its Model's workers are made from another one now
    old: bool = False

    @property
    def serves(self) -> bool:
        """Whether it takes requests."""
        return self.state in SERVING and bool(self.endpoint) and not self.leaving and not self.gone

    @property
    def load(self) -> tuple[bool, int, int, int]:
        """Sort key of the choice: what is pending there by the larger of both accounts, then who was chosen last.

        Those that are being replaced come last, so that they come to rest; else none of them could ever go.
        """
        return self.old, max(self.in_flight, self.told_pending), self.in_flight, self.chosen

    def take(self) -> int:
        """A request is going to it; whoever says so gives it back in the end. Returns the breaker's token for it."""
        self.in_flight += 1
        return self.breaker.began()

    def give_back(self) -> None:
        """A request has ended; the breaker is told of its own how."""
        self.in_flight -= 1

    def refused(self, state: bytes, token: int, now: float) -> None:
        """It takes no requests, whatever the watch says, being in this state; b"": the address is another worker's.

        Going is one way. One that loads will be there again, which the watch does not tell while the operator is down.
        """
        if self.state not in SERVING:
            return
        if state in _ONE_WAY:
            self.gone = True
        else:
            self.breaker.busy(token, now)

    def follow(self, seen: "Worker") -> None:
        """Take a later view of it."""
        restarted = seen.restarts != self.restarts or bool(self.boot and seen.boot and seen.boot != self.boot)
        # who serves again after it did not is another process, too
        if restarted or (seen.state in SERVING and self.state not in SERVING):
            self.breaker.reset()
        self.gone = self.gone and not restarted and seen.state in SERVING and seen.endpoint == self.endpoint
        self.version, self.state, self.endpoint = seen.version, seen.state, seen.endpoint
        self.reason, self.message = seen.reason, seen.message
        self.told_pending, self.leaving = seen.told_pending, seen.leaving
        self.restarts, self.boot = seen.restarts, seen.boot or self.boot


class Directory:
    """Workers by namespace and model name. One worker gets at most ``most_in_flight`` requests at once from here."""

    def __init__(self, most_in_flight: int = 128) -> None:
        self._most = most_in_flight
        self._workers: dict[str, Worker] = {}
        self._models: dict[Key, dict[str, Worker]] = {}
        self._turn = 0

    def __iter__(self) -> Iterator[Worker]:
        """Iterate over all of them."""
        return iter(list(self._workers.values()))

    def __len__(self) -> int:
        """How many workers are known."""
        return len(self._workers)

    def observe(self, obj: Mapping[str, Any]) -> Key:
        """Take a ModelWorker as the watch or a list shows it; an older view changes nothing. Returns its model."""
        seen = read_worker(obj)
        known = self._workers.get(seen.uid)
        if known is None:
            self._workers[seen.uid] = seen
            self._models.setdefault(model_key(seen), {})[seen.uid] = seen
            return model_key(seen)
        if seen.version > known.version:
            known.follow(seen)
        return model_key(known)

    def forget(self, uid: str) -> Key | None:
        """Drop a worker that is gone; return its model."""
        worker = self._workers.pop(uid, None)
        if worker is None:
            return None
        key = model_key(worker)
        members = self._models[key]
        del members[uid]
        if not members:
            del self._models[key]
        return key

    def replace(self, objects: Iterable[Mapping[str, Any]]) -> set[Key]:
        """Take a full list; return the models whose workers may have changed."""
        listed = list(objects)
        changed = {self.observe(obj) for obj in listed}
        for uid in set(self._workers) - {obj["metadata"]["uid"] for obj in listed}:
            if (key := self.forget(uid)) is not None:
                changed.add(key)
        return changed

    def mark(self, key: Key, templates: Mapping[str, str]) -> None:
        """Note which of a model's workers are old; ``templates`` are the present ones, by the name of the Model."""
        for worker in self._models.get(key, _NOBODY).values():
            present = templates.get(worker.owner)
            worker.old = bool(present and worker.template and worker.template != present)

    def of(self, namespace: str, model: str) -> Iterator[Worker]:
        """Iterate over a model's workers, whatever they are doing."""
        return iter(self._models.get((namespace, model), {}).values())

    def knows(self, namespace: str, model: str) -> bool:
        """Whether there is a worker of the model, whatever it is doing."""
        return (namespace, model) in self._models

    def choose(self, namespace: str, model: str, now: float, tried: Container[str] = ()) -> Worker | None:
        """Return the worker to ask: serving, not tried yet, its breaker closed, the least `load`. None: none is."""
        chosen: Worker | None = None
        for worker in self._models.get((namespace, model), _NOBODY).values():
            if not worker.serves or worker.in_flight >= self._most or worker.uid in tried:
                continue
            if not worker.breaker.allows(now):
                continue
            if chosen is None or worker.load < chosen.load:
                chosen = worker
        if chosen is not None:
            self._turn += 1
            chosen.chosen = self._turn
        return chosen


def model_key(worker: Worker) -> Key:
    """Return namespace and model name."""
    return worker.namespace, worker.model


def read_worker(obj: Mapping[str, Any]) -> Worker:
    """Read what routing needs of a ModelWorker; raises KeyError or ValueError for what is none."""
    meta, spec, status = obj["metadata"], obj["spec"], obj.get("status") or {}
    state, labels = status.get("state"), meta.get("labels") or {}
    return Worker(
        uid=meta["uid"],
        namespace=meta["namespace"],
        name=meta["name"],
        model=spec["model"]["name"],
        state=parse_state(state) if state else None,
        endpoint=status.get("endpoint") or "",
        reason=status.get("reason") or "",
        message=status.get("message") or "",
        version=int(meta["resourceVersion"]),
        told_pending=int(status.get("pendingRequests") or 0),
        leaving=bool(spec.get("shutdown")) or "deletionTimestamp" in meta,
        pool=spec.get("pool") or "",
        owner=labels.get(LABEL_MODEL) or "",
        template=labels.get(LABEL_TEMPLATE) or "",
        capability=spec["model"].get("capability") or "",
        created=meta.get("creationTimestamp") or "",
        restarts=int(status.get("restarts") or 0),
        boot=(status.get("mirrored") or {}).get("bootID") or "",
    )
