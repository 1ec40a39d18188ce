"""The connections to workers that are there: kept alive, used again, given up when they are silent."""

import asyncio
import time
from collections.abc import Callable, Container
from typing import Final
from urllib.parse import urlsplit

from modelpool_gateway.upstream import Connection, UpstreamError

CONNECT_SECONDS: Final = 3.0
#: A worker closes a connection that is silent for 75 s; ours is never used so late that this could cross a request.
_IDLE_SECONDS: Final = 30.0
_MAX_IDLE: Final = 256


class Pool:
    """Connections to workers by their address; those that rest are used again, the latest first.

    A worker that is silent for ``patience`` seconds in the middle of an exchange is given up. Whoever takes a
    connection gives it back.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, patience: float = 600.0) -> None:
        self._monotonic = monotonic
        self._patience = patience
        self._idle: dict[str, list[Connection]] = {}
        #: those in use: what each had heard when that was noted, and when
        self._used: dict[Connection, tuple[int, float]] = {}

    def rested(self, endpoint: str) -> Connection | None:
        """Return a connection to ``http://host:port`` that is there already."""
        resting = self._idle.get(endpoint)
        now = self._monotonic()
        while resting:
            connection = resting.pop()
            if connection.alive and now - connection.since < _IDLE_SECONDS:
                self._used[connection] = (connection.heard, now)
                return connection
            connection.close()
        return None

    async def take(self, endpoint: str, *, fresh: bool = False) -> Connection:
        """Return a connection to ``http://host:port``. Raises `UpstreamError` where the worker takes none."""
        if fresh:  # one that rested has been closed by the worker: so may have been the others
            for connection in self._idle.pop(endpoint, ()):
                connection.close()
        elif (found := self.rested(endpoint)) is not None:
            return found
        host, port = address(endpoint)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, made = await asyncio.get_running_loop().create_connection(Connection, host, port)
        except (OSError, TimeoutError) as error:
            raise UpstreamError(f"no connection ({type(error).__name__})") from error
        self._used[made] = (made.heard, self._monotonic())
        return made

    def give(self, endpoint: str, connection: Connection) -> None:
        """Take a connection back; one that cannot be used again is cut."""
        self._used.pop(connection, None)
        if not connection.reusable:
            connection.abort()
            return
        connection.since = self._monotonic()
        resting = self._idle.setdefault(endpoint, [])
        resting.append(connection)
        if len(resting) > _MAX_IDLE:
            resting.pop(0).close()

    def sweep(self, known: Container[str]) -> None:
        """Close what has rested too long and what leads to addresses that no worker has; give up silent workers."""
        now = self._monotonic()
        for connection, (heard, since) in list(self._used.items()):
            if connection.heard != heard or not connection.quiet:
                self._used[connection] = (connection.heard, now)
            elif now - since >= self._patience:
                connection.abort("the worker is silent", late=True)
        for endpoint, resting in list(self._idle.items()):
            late = [each for each in resting if endpoint not in known or now - each.since >= _IDLE_SECONDS]
            for connection in late:
                resting.remove(connection)
                connection.close()
            if not resting:
                del self._idle[endpoint]

    def close(self) -> None:
        """Close all that rest."""
        self.sweep(())


def address(endpoint: str) -> tuple[str, int]:
    """Return host and port of ``http://host:port``. Raises `UpstreamError`."""
    parts = urlsplit(endpoint)
    if parts.scheme != "http" or not parts.hostname:
        raise UpstreamError("no address; expected http://host:port")
    return parts.hostname, parts.port or 80
