"""A circuit breaker for one worker: one that fails again and again is left alone for a while, then tried once."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

#: Failures in a row that open it.
THRESHOLD: Final = 3
FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 30.0


class BreakerState(StrEnum):
    """Closed: requests go through. Open: none does. HalfOpen: one is on trial."""

    CLOSED = "Closed"
    OPEN = "Open"
    HALF_OPEN = "HalfOpen"


@dataclass(slots=True)
class Breaker:
    """Whoever sends a request to the worker says so, and how it ended. Times are monotonic seconds.

    A failure is the worker's: no connection, a connection cut before a byte, a broken answer. An answer that refuses
    the request, or a client that leaves, is none.
    """

    failures: int = 0
    _until: float = 0.0
    _trial: bool = False

    def state(self, now: float) -> BreakerState:
        """Return the state; an open one becomes half-open by itself once its pause is over."""
        if self.failures < THRESHOLD:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if self._trial or now >= self._until else BreakerState.OPEN

    def allows(self, now: float) -> bool:
        """Whether a request may go to the worker now; in the half-open state only the one on trial may."""
        return self.failures < THRESHOLD or (now >= self._until and not self._trial)

    def opens_in(self, now: float) -> float:
        """Return the seconds until an open one lets a request through on trial; 0 where none has to wait."""
        return max(0.0, self._until - now) if self.failures >= THRESHOLD else 0.0

    def began(self) -> None:
        """A request goes to the worker."""
        self._trial = self.failures >= THRESHOLD

    def succeeded(self) -> None:
        """The worker has answered."""
        self.failures, self._trial = 0, False

    def failed(self, now: float) -> None:
        """The worker has failed a request."""
        self.failures += 1
        self._trial = False
        if self.failures >= THRESHOLD:
            pause = FIRST_PAUSE_SECONDS * 2.0 ** min(self.failures - THRESHOLD, 16)
            self._until = now + min(pause, LONGEST_PAUSE_SECONDS)

    def abandoned(self) -> None:
        """A request ended without telling anything of the worker: its client has left."""
        self._trial = False
