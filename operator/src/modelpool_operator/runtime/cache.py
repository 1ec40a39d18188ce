"""What the operator last saw of each object: fed by watches, by its own writes' replies, and by full lists.

A hint, not the truth: what a decision destroys is read anew first.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

import structlog

_log = structlog.get_logger(__name__)
V = TypeVar("V")
Key = tuple[str, str]
#: What objects are looked up together by, its kind first: ("pool", namespace, name).
Group = tuple[str, ...]
#: What parsing an object raises that an older CRD, or somebody's hand, has left in an unexpected form.
UNREADABLE: Final = (ValueError, KeyError, TypeError)  # pydantic's ValidationError is a ValueError


def _version(obj: dict[str, Any]) -> int:
    try:
        return int(obj["metadata"]["resourceVersion"])
    except ValueError:
        return 0  # opaque to us: then the latest word counts


@dataclass
class ObjectCache(Generic[V]):
    """Objects of one kind by namespace and name, parsed once when they change."""

    parse: Callable[[dict[str, Any]], V]
    #: the groups of an object, such as the pool of a worker
    groups: Callable[[V], tuple[Group, ...]] | None = None
    _items: dict[Key, tuple[str, int, V]] = field(default_factory=dict)
    _groups: dict[Group, dict[Key, V]] = field(default_factory=dict)
    #: per key the latest version that whoever is responsible for the object was told of
    _told: dict[Key, tuple[str, int]] = field(default_factory=dict)
    complete: bool = False

    def get(self, key: Key) -> V | None:
        """Return the object as last seen."""
        item = self._items.get(key)
        return item[2] if item else None

    def values(self) -> Iterator[V]:
        """Iterate over all objects as last seen."""
        return iter([item[2] for item in list(self._items.values())])  # the metrics ask from another thread

    def in_group(self, group: Group) -> list[V]:
        """Return the objects of one group as last seen."""
        return list(self._groups.get(group, {}).values())

    def take(self, obj: dict[str, Any], *, tell: bool = True) -> V:
        """Observe an object and return what it reads as; one that is held in this very version is not parsed again."""
        self.observe(obj, tell=tell)
        meta = obj["metadata"]
        known, version = self._items.get((meta["namespace"], meta["name"])), _version(obj)
        same = known is not None and (known[0], known[1]) == (meta["uid"], version) and version != 0
        return known[2] if same and known is not None else self.parse(obj)

    def observe(self, obj: dict[str, Any], *, tell: bool = True) -> bool:
        """Take an object that was read or written; older views of it change nothing.

        Returns whether it is news for whoever is responsible for the object; the caller tells him, or is he. With
        ``tell`` false it is neither: the read refreshes what is held and leaves the news to the watch or the sweep.
        """
        meta = obj["metadata"]
        key, uid, version = (meta["namespace"], meta["name"]), meta["uid"], _version(obj)
        known, told = self._items.get(key), self._told.get(key)
        if known is None or known[0] != uid or version == 0 or version > known[1]:
            self._hold(key, uid, version, self.parse(obj))
        news = told is None or told[0] != uid or version == 0 or version > told[1]
        if tell and news:
            self._told[key] = (uid, version)
        return news

    def told(self, key: Key) -> None:
        """Note that whoever is responsible for the object is told of it as it is held."""
        known = self._items.get(key)
        if known is not None:
            self._told[key] = (known[0], known[1])

    def forget(self, key: Key, uid: str | None = None) -> bool:
        """Drop an object that is gone; one of the same name and another uid stays."""
        known = self._items.get(key)
        if known is None or (uid is not None and known[0] != uid):
            return False
        del self._items[key]
        self._told.pop(key, None)
        self._ungroup(key, known[2])
        return True

    def listing(self) -> "Listing[V]":
        """Begin to take a full list; what is known now and missing in it is gone, what is seen meanwhile is younger."""
        return Listing(self)

    def keys(self) -> set[Key]:
        """Return all keys."""
        return set(self._items)

    def _hold(self, key: Key, uid: str, version: int, value: V) -> None:
        known = self._items.get(key)
        if known is not None:
            self._ungroup(key, known[2])
        self._items[key] = (uid, version, value)
        for group in self.groups(value) if self.groups else ():
            self._groups.setdefault(group, {})[key] = value

    def _ungroup(self, key: Key, value: V) -> None:
        for group in self.groups(value) if self.groups else ():
            members = self._groups[group]
            del members[key]
            if not members:
                del self._groups[group]


class Listing(Generic[V]):
    """A full list that comes page by page: a thousand objects at once, as they come over the wire, are a lot of memory.

    Nobody has been told of anything before ``end``: what a list shows that breaks off is news to the next one as well.
    """

    def __init__(self, cache: ObjectCache[V]) -> None:
        self._cache = cache
        self._known = cache.keys()
        self._present: dict[str, set[Key]] = {}
        self._changed: set[Key] = set()

    def take(self, path: str, page: Iterable[dict[str, Any]], *, anew: bool = False) -> None:
        """Observe a page of this path; with ``anew`` its list begins here, whatever came before."""
        present = self._present[path] = set() if anew else self._present.get(path, set())
        for obj in page:
            key = (obj["metadata"]["namespace"], obj["metadata"]["name"])
            present.add(key)
            try:
                if self._cache.observe(obj, tell=False):
                    self._changed.add(key)
            except UNREADABLE as error:
                # one object that we cannot read must not keep us from all the others
                _log.error("object.unreadable", key=key, error=type(error).__name__)

    def end(self) -> set[Key]:
        """Forget what was known when the list began and is not in it; return the keys that changed or are gone."""
        for key in self._changed:
            self._cache.told(key)
        for key in self._known.difference(*self._present.values()):
            if self._cache.forget(key):
                self._changed.add(key)
        self._cache.complete = True
        return self._changed
