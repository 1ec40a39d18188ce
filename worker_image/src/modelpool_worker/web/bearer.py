"""The pool's bearer token: read from a file that may change while the worker runs."""

import hmac
from collections.abc import Callable
from pathlib import Path
from typing import Final

#: How long the token before the present one is still taken, seconds: operator and workers see a change at
#: different times.
GRACE_SECONDS: Final = 120.0
_MAX_BYTES: Final = 4096


class BearerToken:
    """Judges Authorization headers. Without a readable, non-empty file it refuses everybody."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._current: bytes | None = None
        self._previous: bytes | None = None
        self._previous_until = 0.0

    def refresh(self) -> None:
        """Look at the file; called now and then, so that the grace of an old token begins when it was replaced."""
        seen = self._read()
        if seen is None or seen == self._current:
            return
        if self._current is not None:
            self._previous, self._previous_until = self._current, self._clock() + GRACE_SECONDS
        self._current = seen

    def allows(self, authorization: str | None) -> bool:
        """Return whether the header carries the present token, or the one before within its grace."""
        self.refresh()
        scheme, _, offered = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or self._read() is None:
            return False
        given = offered.strip().encode("utf-8", "surrogateescape")
        current, previous = self._current, self._previous
        good = current is not None and hmac.compare_digest(given, current)
        in_grace = previous is not None and self._clock() < self._previous_until
        old = hmac.compare_digest(given, previous or b"\x00") and in_grace
        return good or old

    def _read(self) -> bytes | None:
        try:
            with self._path.open("rb") as file:
                token = file.read(_MAX_BYTES).strip()
        except OSError:
            return None
        return token or None
