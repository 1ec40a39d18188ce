"""A budget of writes: so many a second, with a small burst."""

import time
from collections.abc import Callable


class WriteBudget:
    """A token bucket. Load flips and gauges of all workers share one; lifecycle moves never wait for it."""

    def __init__(self, per_second: float, burst: float = 10.0, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._rate = per_second
        self._burst = burst
        self._monotonic = monotonic
        self._tokens = burst
        self._at = monotonic()

    def take(self) -> bool:
        """Take one write if there is one."""
        now = self._monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def wait(self) -> float:
        """Return the seconds until the next write may be taken."""
        return max(0.0, (1.0 - self._tokens) / self._rate)
