"""What requests want of the Models, as the demand Leases say; kept in memory, and gone with it, as Leases lapse.

A gateway renews the Lease of a Model while somebody waits for it. Whether it still holds is counted from when *this*
process saw it change, so no clock of a gateway matters, but for a Lease that is seen for the first time.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from modelpool_operator.api import names
from modelpool_operator.domain.model_plan import Demand
from modelpool_operator.domain.podview import parse_time
from modelpool_operator.runtime.cache import Key

#: A wish holds for so long after it was last seen to be renewed, seconds.
HOLDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class _Heard:
    version: str = ""
    #: uid of the Model that the Lease goes with; a Model of the same name made anew is another one
    owner: str = ""
    #: monotonic seconds when somebody was last seen to want a worker
    wanted_at: float | None = None
    keep_alive: int | None = None


class Demands:
    """The last word of each demand Lease, by the Model's key."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._began = monotonic()
        self._heard: dict[Key, _Heard] = {}

    def observe(self, obj: Mapping[str, Any], now: datetime) -> Key | None:
        """Take a Lease as a watch shows it; return the Model that it is news for. ``now`` is the API server's time."""
        meta, spec, key = obj["metadata"], obj.get("spec") or {}, _model_of(obj)
        if key is None:
            return None
        known = self._heard.get(key, _Heard())
        if known.version == meta["resourceVersion"]:
            return None
        owners = meta.get("ownerReferences") or ()
        heard = replace(known, version=meta["resourceVersion"], owner=owners[0]["uid"] if owners else "")
        keep = (meta.get("annotations") or {}).get(names.ANNOTATION_KEEP_ALIVE)
        if keep is not None:
            heard = replace(heard, keep_alive=_whole(keep, known.keep_alive))
        elif known.version or _is_fresh(spec, now):
            heard = replace(heard, wanted_at=self._monotonic())
        self._heard[key] = heard
        return key

    def forget(self, obj: Mapping[str, Any]) -> Key | None:
        """Drop what a Lease said that is gone; return the Model that it is news for."""
        key = _model_of(obj)
        return key if key is not None and self._heard.pop(key, None) is not None else None

    def of(self, key: Key, uid: str) -> Demand:
        """Return what requests want now of the Model of this name and uid."""
        heard, known = self._heard.get(key), self.settles_in() == 0
        if heard is None or heard.owner not in ("", uid):
            return Demand(known=known)
        return Demand(wanted=self.lapses_in(key) > 0, keep_alive=heard.keep_alive, known=known)

    def taken(self, key: Key, keep_alive: int | None) -> None:
        """Forget a word of how long to stay: it is written down, and holds for the workers there are now."""
        heard = self._heard.get(key)
        if heard is not None and heard.keep_alive == keep_alive:
            self._heard[key] = replace(heard, keep_alive=None)

    def settles_in(self) -> float:
        """Return the seconds after which a wish that was there before this process would have been heard."""
        return max(0.0, self._began + HOLDS - self._monotonic())

    def lapses_in(self, key: Key) -> float:
        """Return the seconds after which nobody wants a worker of it any more; 0: nobody does now."""
        heard = self._heard.get(key)
        if heard is None or heard.wanted_at is None:
            return 0.0
        return max(0.0, heard.wanted_at + HOLDS - self._monotonic())


def _model_of(obj: Mapping[str, Any]) -> Key | None:
    """Return the Model that a Lease asks for; None for one that only looks so."""
    meta = obj["metadata"]
    model = (meta.get("labels") or {}).get(names.LABEL_DEMAND, "")
    return (meta["namespace"], model) if model and meta["name"] == names.demand_lease(model) else None


def _is_fresh(spec: Mapping[str, Any], now: datetime) -> bool:
    """Whether a Lease that is new to us has been renewed lately: it may be left over from long ago."""
    try:
        renewed = parse_time(spec.get("renewTime"))
    except ValueError:
        return False
    return renewed is not None and abs((now - renewed).total_seconds()) < HOLDS


def _whole(text: str, otherwise: int | None) -> int | None:
    try:
        return int(text[:12])
    except ValueError:
        return otherwise
