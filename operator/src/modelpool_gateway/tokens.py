"""The bearer tokens of pools whose workers' ports are closed: mounted Secrets, read again while the gateway runs."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from modelpool_api.pod import TOKEN_FILE

#: A token is read again after so long: the one before a rotation is good for two minutes more.
_LOOK_SECONDS: Final = 5.0
_MAX_CHARS: Final = 4096


class PoolTokens:
    """Tokens by pool, from ``FOLDER/POOL/token``; a pool without one has none."""

    def __init__(self, folder: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._monotonic = monotonic
        self._known: dict[str, tuple[str | None, float]] = {}

    def of(self, pool: str) -> str | None:
        """Return the token for a pool's workers, None where there is none."""
        now = self._monotonic()
        token, looked = self._known.get(pool, (None, float("-inf")))
        if now - looked >= _LOOK_SECONDS:
            token = self._read(pool)
            self._known[pool] = (token, now)
        return token

    def _read(self, pool: str) -> str | None:
        if not pool or "/" in pool or pool.startswith("."):
            return None
        try:
            with (self._folder / pool / TOKEN_FILE).open("rb") as file:
                token = file.read(_MAX_CHARS + 1).strip().decode("ascii", "replace")
        except OSError:
            return None
        # what does not fit into a header is no token
        return token if token.isascii() and token.isprintable() and 0 < len(token) <= _MAX_CHARS else None
