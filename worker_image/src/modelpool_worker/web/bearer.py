"""The pool's bearer token: read from a file that may change while the worker runs."""

import hmac
from collections.abc import Callable
from pathlib import Path
from typing import Final

#: How long the token before the present one is still taken, seconds: operator and workers see a change at
#: different times.
GRACE_SECONDS: Final = 120.0
#: How long what was read from the file is believed, seconds: a token that was taken away is good for so long.
LOOK_SECONDS: Final = 1.0
_MAX_BYTES: Final = 4096


class BearerToken:
    """Judges Authorization headers. Without a readable, non-empty file it refuses everybody.

    ``clock`` gives seconds, monotonic. It looks at the file at most once a second as long as it lets in who asks: every
    request of a closed port asks, on the event loop.
    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._there = False
        self._current: bytes | None = None
        self._previous: bytes | None = None
        self._previous_until = 0.0
        self._look_at: float | None = None

    def refresh(self) -> None:
        """Look at the file; called now and then, so that the grace of an old token begins when it was replaced."""
        now = self._clock()
        self._look_at = now + LOOK_SECONDS
        seen = self._read()
        self._there = seen is not None
        if seen is None or seen == self._current:
            return
        if self._current is not None:
            self._previous, self._previous_until = self._current, now + GRACE_SECONDS
        self._current = seen

    def allows(self, authorization: str | None) -> bool:
        """Return whether the header carries the present token, or the one before within its grace."""
        scheme, _, offered = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return False
        given = offered.strip().encode("utf-8", "surrogateescape")
        if self._look_at is not None and self._clock() < self._look_at and self._matches(given):
            return True
        # what is not known may be the new token, which counts from the moment at which it is in the file
        self.refresh()
        return self._matches(given)

    def _matches(self, given: bytes) -> bool:
        current, previous = self._current, self._previous
        good = current is not None and hmac.compare_digest(given, current)
        in_grace = previous is not None and self._clock() < self._previous_until
        old = hmac.compare_digest(given, previous or b"\x00") and in_grace
        return self._there and (good or old)

    def _read(self) -> bytes | None:
        try:
            with self._path.open("rb") as file:
                token = file.read(_MAX_BYTES).strip()
        except OSError:
            return None
        return token or None
