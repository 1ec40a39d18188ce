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


class KeyedQueue(Generic[K]):
    """Deduplicated work, level-triggered.

    A key added while it is being worked on is worked on once more afterwards; added ten times, still once.
    """

    def __init__(
        self, monotonic: Callable[[], float] = time.monotonic, jitter: Callable[[], float] = random.random
    ) -> None:
        self._monotonic = monotonic
        self._jitter = jitter
        self._ready: dict[K, None] = {}  # insertion order is the order of service
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
        return len(self._ready)

    def add(self, key: K) -> None:
        """Have the key worked on as soon as possible."""
        if key in self._active:
            self._again.add(key)
        elif key not in self._ready:
            if not self._ready and not self._active:
                self.last_progress = self._monotonic()  # a rest is not a stall
            self._ready[key] = None
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
            if self._ready:
                key = next(iter(self._ready))
                del self._ready[key]
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
        if not self._ready and not self._active:
            return 0.0
        return self._monotonic() - self.last_progress

    def _promote(self) -> None:
        now = self._monotonic()
        while self._later and self._later[0][0] <= now:
            at, _, key = heapq.heappop(self._later)
            if self._due.get(key) == at:
                del self._due[key]
                self.add(key)
