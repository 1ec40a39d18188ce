"""The Models that can be called by name, as the watch shows them: what is known of each in memory."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from modelpool_operator.domain.podview import parse_time

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Pause:
    """Workers have failed, and none is made before ``until``; None: not before the Model's spec is changed."""

    reason: str
    message: str
    until: datetime | None

    def holds(self, now: datetime) -> bool:
        """Whether no worker is made now."""
        return self.until is None or now < self.until


@dataclass(frozen=True, slots=True)
class Model:
    """A Model as it was read. ``name`` is the object's, ``model`` what requests call it by."""

    uid: str
    namespace: str
    name: str
    model: str
    capability: str
    version: int
    created: datetime
    #: no worker may be made
    off: bool
    #: hash of the template of the workers that are made now
    template: str
    keep_alive: int | None
    pause: Pause | None
    cold_start_seconds: float | None
    #: the operator has seen the spec as it is now
    fresh: bool = True

    @property
    def key(self) -> Key:
        """Namespace and name of the object."""
        return self.namespace, self.name


class Models:
    """All Models, by what requests call them."""

    def __init__(self) -> None:
        self._models: dict[str, Model] = {}
        self._named: dict[Key, dict[str, Model]] = {}

    def __iter__(self) -> Iterator[Model]:
        """Iterate over all of them."""
        return iter(list(self._models.values()))

    def of(self, namespace: str, model: str) -> list[Model]:
        """Return the Models that answer to a name, the oldest first."""
        found = self._named.get((namespace, model), {}).values()
        return sorted(found, key=lambda each: (each.created, each.name))

    def observe(self, obj: Mapping[str, Any]) -> set[Key]:
        """Take a Model as the watch or a list shows it; return the names that are concerned: (namespace, name)."""
        seen = read_model(obj)
        known = self._models.get(seen.uid)
        if known is not None and known.version >= seen.version:
            return {(known.namespace, known.model)}
        concerned = self.forget(seen.uid)
        self._models[seen.uid] = seen
        self._named.setdefault((seen.namespace, seen.model), {})[seen.uid] = seen
        return concerned | {(seen.namespace, seen.model)}

    def forget(self, uid: str) -> set[Key]:
        """Drop a Model that is gone; return the name that is concerned."""
        model = self._models.pop(uid, None)
        if model is None:
            return set()
        key = (model.namespace, model.model)
        named = self._named[key]
        del named[uid]
        if not named:
            del self._named[key]
        return {key}

    def replace(self, objects: Iterable[Mapping[str, Any]]) -> set[Key]:
        """Take a full list; return the names that are concerned."""
        listed = list(objects)
        concerned: set[Key] = set()
        for obj in listed:
            concerned |= self.observe(obj)
        for uid in set(self._models) - {obj["metadata"]["uid"] for obj in listed}:
            concerned |= self.forget(uid)
        return concerned


def read_model(obj: Mapping[str, Any]) -> Model:
    """Read what the gateway needs of a Model; raises KeyError or ValueError for what is none."""
    meta, spec, status = obj["metadata"], obj["spec"], obj.get("status") or {}
    served = spec["worker"]["model"]
    return Model(
        uid=meta["uid"],
        namespace=meta["namespace"],
        name=meta["name"],
        model=served["name"],
        capability=served["capability"],
        version=int(meta["resourceVersion"]),
        created=datetime.fromisoformat(meta["creationTimestamp"]),
        off=not spec.get("maxReplicas", 1) or "deletionTimestamp" in meta,
        template=status.get("template") or "",
        keep_alive=status.get("keepAliveSeconds"),
        pause=_pause(meta, status),
        cold_start_seconds=(status.get("coldStartSeconds") or {}).get("total"),
        fresh=_is_fresh(meta, status),
    )


def _is_fresh(meta: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    return bool(status.get("observedGeneration") == meta.get("generation"))


def _pause(meta: Mapping[str, Any], status: Mapping[str, Any]) -> Pause | None:
    told = status.get("backOff")
    # what was found out of an older spec says nothing of this one
    if not told or not _is_fresh(meta, status):
        return None
    return Pause(told.get("reason") or "Failed", told.get("message") or "", parse_time(told.get("retryTime")))
