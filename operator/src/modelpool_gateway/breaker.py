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
    """Whoever sends a request to the worker says so, and how it ended, by the token that he was given.

    Times are monotonic seconds. A failure is the worker's: no connection, a connection cut before a byte, a broken
    answer. An answer that refuses the request, or a client that leaves, is none.

    When a worker dies everything that it had fails at once. That is one event, which the first few tell of: what was
    sent before it opened says nothing of the worker as it is afterwards. While it is open nobody else is given the
    token of the round that begins then, so who has it is on trial.
    """

    failures: int = 0
    _until: float = 0.0
    _trial: bool = False
    _round: int = 0

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

    def began(self) -> int:
        """A request goes to the worker; return the token by which it says how it ended."""
        self._trial = self.failures >= THRESHOLD
        return self._round

    def succeeded(self) -> bool:
        """The worker has answered, whomever; return whether that closes it."""
        closes = self.failures >= THRESHOLD
        self.failures, self._trial = 0, False
        return closes

    def failed(self, token: int, now: float) -> None:
        """The worker has failed a request."""
        if token != self._round:
            return
        self.failures += 1
        if self.failures >= THRESHOLD:
            self._open(now, FIRST_PAUSE_SECONDS * 2.0 ** min(self.failures - THRESHOLD, 16))

    def busy(self, token: int, now: float) -> None:
        """The worker has said that it takes no requests yet: a short pause, however often it says so."""
        if token == self._round:
            self.failures = max(self.failures, THRESHOLD)
            self._open(now, FIRST_PAUSE_SECONDS)

    def abandoned(self, token: int) -> None:
        """A request ended, maybe without telling anything of the worker: its client has left."""
        if token == self._round:
            self._trial = False

    def reset(self) -> None:
        """The worker is another process now, of which nothing is known yet."""
        self.failures, self._trial = 0, False
        self._round += 1

    def _open(self, now: float, pause: float) -> None:
        self._until = now + min(pause, LONGEST_PAUSE_SECONDS)
        self._trial = False
        self._round += 1
