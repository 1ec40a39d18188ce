"""What the operator last saw of each object: fed by watches, by its own writes' replies, and by full lists.

A hint, not the truth: what a decision destroys is read anew first.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

V = TypeVar("V")
Key = tuple[str, str]


def _version(obj: dict[str, Any]) -> int:
    try:
        return int(obj["metadata"]["resourceVersion"])
    except ValueError:
        return 0  # opaque to us: then the latest word counts


@dataclass
class ObjectCache(Generic[V]):
    """Objects of one kind by namespace and name, parsed once when they change."""

    parse: Callable[[dict[str, Any]], V]
    _items: dict[Key, tuple[str, int, V]] = field(default_factory=dict)
    complete: bool = False

    def get(self, key: Key) -> V | None:
        """Return the object as last seen."""
        item = self._items.get(key)
        return item[2] if item else None

    def values(self) -> Iterator[V]:
        """Iterate over all objects as last seen."""
        return iter([item[2] for item in self._items.values()])

    def observe(self, obj: dict[str, Any]) -> bool:
        """Take an object that was read or written; return whether it is news. Older views of it change nothing."""
        meta = obj["metadata"]
        key, uid, version = (meta["namespace"], meta["name"]), meta["uid"], _version(obj)
        known = self._items.get(key)
        if known is not None and known[0] == uid and 0 < version <= known[1]:
            return False
        self._items[key] = (uid, version, self.parse(obj))
        return True

    def forget(self, key: Key, uid: str | None = None) -> bool:
        """Drop an object that is gone; one of the same name and another uid stays."""
        known = self._items.get(key)
        if known is None or (uid is not None and known[0] != uid):
            return False
        del self._items[key]
        return True

    def replace(self, objects: Iterable[dict[str, Any]], listed_at: set[Key]) -> set[Key]:
        """Take a full list; return the keys that changed or are gone.

        ``listed_at`` are the keys that were known when the list was asked for: only those can be missed in it, what
        was seen since then is younger than the list.
        """
        changed: set[Key] = set()
        present: set[Key] = set()
        for obj in objects:
            key = (obj["metadata"]["namespace"], obj["metadata"]["name"])
            present.add(key)
            if self.observe(obj):
                changed.add(key)
        for key in listed_at - present:
            if self.forget(key):
                changed.add(key)
        self.complete = True
        return changed

    def keys(self) -> set[Key]:
        """Return all keys."""
        return set(self._items)
