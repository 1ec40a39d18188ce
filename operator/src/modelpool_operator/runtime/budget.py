"""A budget of writes: so many a second, with a small burst."""

import time
from collections.abc import Callable
from typing import Final

#: A turn that nobody has taken for so long is lost, seconds: else many at once could be taken up later.
_KEPT_SECONDS: Final = 10.0


class WriteBudget:
    """Load flips and gauges of all workers share one; lifecycle moves never wait for it.

    Whoever has to wait gets a turn of his own and is told when: a thousand who wait ask twice each, not all the time.
    """

    def __init__(self, per_second: float, burst: float = 10.0, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._apart = 1.0 / per_second
        self._burst_seconds = (burst - 1.0) / per_second
        self._monotonic = monotonic
        self._next = monotonic() - self._burst_seconds
        self._turns: dict[str, float] = {}

    def take(self, who: str) -> float:
        """Take one write and return 0, or return the seconds until the turn that is kept for ``who``."""
        now = self._monotonic()
        turn = self._turns.get(who)
        if turn is None or now - turn > _KEPT_SECONDS:
            turn = max(self._next, now - self._burst_seconds)
            self._next = turn + self._apart
        if turn <= now + 1e-9:
            self._turns.pop(who, None)
            return 0.0
        self._turns[who] = turn
        return turn - now

    def forget(self, who: str) -> None:
        """Drop the turn of somebody who is gone."""
        self._turns.pop(who, None)
