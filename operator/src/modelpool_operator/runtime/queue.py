"""One queue of keys: a key waits in it once, is worked on by one at a time, and backs off by itself when it fails."""

import asyncio
import heapq
import random
import time
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_BASE_SECONDS: Final = 0.25
_MAX_SECONDS: Final = 60.0
#: While both lanes wait, one key of so many comes from the ordinary one; of fewer once that has waited for so long.
_ORDINARY_TURN: Final = 16
_LATE_TURN: Final = 2
_LATE_SECONDS: Final = 10.0


class KeyedQueue(Generic[K]):
    """Deduplicated work, level-triggered.

    A key added while it is being worked on is worked on once more afterwards; added ten times, still once.
    Urgent keys are served before the others, which keep a turn of their own. It matters only to a crowd: the time of
    what begins (scheduling, an image, a model to load) then passes beside the work for the rest.
    """

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        urgent: Callable[[K], bool] = lambda _: False,
    ) -> None:
        self._monotonic = monotonic
        self._jitter = jitter
        self._is_urgent = urgent
        # insertion order is the order of service
        self._urgent: dict[K, float] = {}
        self._ordinary: dict[K, float] = {}
        self._since_ordinary = 0
        self._active: set[K] = set()
        self._again: set[K] = set()
        self._later: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._tries: dict[K, int] = {}
        self._count = 0
        self._wake = asyncio.Event()
        self.last_progress = monotonic()

    def __len__(self) -> int:
        """How many keys wait to be worked on now."""
        return len(self._urgent) + len(self._ordinary)

    def add(self, key: K) -> None:
        """Have the key worked on as soon as possible."""
        if key in self._active:
            self._again.add(key)
        elif key not in self._urgent and key not in self._ordinary:
            if not len(self) and not self._active:
                self.last_progress = self._monotonic()  # a rest is not a stall
            (self._urgent if self._is_urgent(key) else self._ordinary)[key] = self._monotonic()
            self._wake.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Have the key worked on after so many seconds, unless it is due sooner already."""
        if seconds <= 0:
            self.add(key)
            return
        at = self._monotonic() + seconds
        if self._due.get(key, float("inf")) <= at:
            return
        self._due[key] = at
        self._count += 1
        heapq.heappush(self._later, (at, self._count, key))
        if len(self._later) > 2 * len(self._due) + 64:  # entries that sooner ones have replaced
            self._later = [item for item in self._later if self._due.get(item[2]) == item[0]]
            heapq.heapify(self._later)
        self._wake.set()

    def retry(self, key: K, at_least: float = 0.0) -> float:
        """Have a key that failed worked on later: 0.25 s, doubled each time, at most 60 s; return the delay.

        Whoever refused may have said after how many seconds to come back: then it is no sooner.
        """
        tries = self._tries.get(key, 0)
        self._tries[key] = tries + 1
        delay = min(_MAX_SECONDS, _BASE_SECONDS * 2.0 ** min(tries, 16)) * (0.75 + 0.5 * self._jitter())
        delay = max(delay, at_least)
        self.add_after(key, delay)
        return delay

    def succeeded(self, key: K) -> None:
        """Forget the key's failures."""
        self._tries.pop(key, None)

    async def get(self) -> K:
        """Return the next key; it is ours until ``done``."""
        while True:
            self._promote()
            if len(self):
                key = self._next()
                self._active.add(key)
                return key
            self._wake.clear()
            timeout = self._later[0][0] - self._monotonic() if self._later else None
            try:
                await asyncio.wait_for(self._wake.wait(), timeout)
            except TimeoutError:
                continue

    def done(self, key: K) -> None:
        """Give the key back; it is worked on again at once where it was added meanwhile."""
        self._active.discard(key)
        self.last_progress = self._monotonic()
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def stalled_for(self) -> float:
        """Return for how many seconds keys have waited without any being finished; 0 while there is nothing to do."""
        if not len(self) and not self._active:
            return 0.0
        return self._monotonic() - self.last_progress

    def _next(self) -> K:
        lane = self._urgent if self._urgent and not self._ordinary_due() else self._ordinary
        self._since_ordinary = self._since_ordinary + 1 if lane is self._urgent else 0
        key = next(iter(lane))
        del lane[key]
        return key

    def _ordinary_due(self) -> bool:
        if not self._ordinary:
            return False
        late = self._monotonic() - next(iter(self._ordinary.values())) > _LATE_SECONDS
        return self._since_ordinary + 1 >= (_LATE_TURN if late else _ORDINARY_TURN)

    def _promote(self) -> None:
        now = self._monotonic()
        while self._later and self._later[0][0] <= now:
            at, _, key = heapq.heappop(self._later)
            if self._due.get(key) == at:
                del self._due[key]
                self.add(key)
