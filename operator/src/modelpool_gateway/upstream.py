"""Connections to workers: HTTP/1.1 on httptools, kept alive, one request at a time on each.

General clients take most of a proxy's time (aiohttp: 9 to 10 thousand requests a second on one core, bytes passed on by
a bare protocol: 40 thousand), and the gateway needs little of what they do: POST a body that is there as a whole, pass
the answer on piece by piece, never follow, decode or keep anything.
"""

import asyncio
from collections import deque
from typing import Final, cast

import httptools

Header = tuple[bytes, bytes]

_MAX_HEAD_BYTES: Final = 64 * 1024
_HIGH_WATER: Final = 256 * 1024


class UpstreamError(Exception):
    """The worker did not answer, or its answer broke off.

    ``untouched``: an old connection was closed before a byte. ``late``: it has been silent for too long.
    """

    def __init__(self, message: str, *, untouched: bool = False, late: bool = False) -> None:
        super().__init__(message)
        self.untouched, self.late = untouched, late


class Connection(asyncio.Protocol):
    """One connection to a worker; errors of an exchange are raised by whoever waits for the answer."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._error: UpstreamError | None = None
        self._pieces: deque[bytes] = deque()
        self._buffered = 0
        self._paused = False
        self._head_bytes = 0
        self._until_end = False
        #: pieces that have come in all, and how many of them before this exchange
        self.heard = 0
        self._before = 0
        self.exchanges = 0
        self.since = 0.0
        self.status = 0
        self.headers: list[Header] = []
        self.complete = True
        self._reusable = False

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take bytes of the answer; bytes that nobody asked for end the connection."""
        if self._parser is None or self.complete:
            self._fail("bytes that nobody asked for")
            return
        self.heard += 1
        if not self.status:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail("the worker wants another protocol")
        except httptools.HttpParserError as error:
            self._fail(f"no valid answer ({type(error).__name__})")
        if not self.status and self._head_bytes > _MAX_HEAD_BYTES:
            self._fail("the answer's headers are too large")
        self._wake()

    def eof_received(self) -> bool:
        """Let the transport close; an answer without a length is complete with it."""
        if self._parser is not None and not self.complete and self.status and self._until_end:
            self.complete, self._reusable = True, False
            self._wake()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """End what is under way."""
        del exc
        if not self.complete:
            self._fail("the connection broke", untouched=self.exchanges > 1 and self.heard == self._before)
        self._transport = self._parser = None  # the parser knows us

    # what the parser calls

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Take the head, unless it is one that only announces the real one."""
        if self._parser is None:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self.headers = []
            return
        self.status = status
        names = {name for name, _ in self.headers}
        self._until_end = not names & {b"content-length", b"transfer-encoding"} and status not in (204, 304)

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body; too much of it that nobody has taken makes the worker wait."""
        self._pieces.append(body)
        self._buffered += len(body)
        if self._buffered > _HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """Note the end of the answer."""
        if self.status and self._parser is not None:
            self.complete, self._reusable = True, self._parser.should_keep_alive()

    # what the proxy calls

    @property
    def alive(self) -> bool:
        """Whether another request may be sent."""
        return self._transport is not None and not self._transport.is_closing() and self._error is None

    @property
    def reusable(self) -> bool:
        """Whether the exchange is over and the worker keeps the connection."""
        return self.complete and self._reusable and self.alive and not self._pieces

    def send(self, head: bytes, body: bytes) -> None:
        """Send a request."""
        self._parser = httptools.HttpResponseParser(self)
        self._until_end = False
        self.status, self.headers, self.complete, self._reusable = 0, [], False, False
        self._head_bytes, self._before = 0, self.heard
        self.exchanges += 1
        if self._transport is None or self._transport.is_closing():
            self._fail("the connection broke", untouched=self.exchanges > 1)
        elif len(body) > _HIGH_WATER:
            self._transport.writelines([head, body])
        else:
            self._transport.write(head + body)

    async def head(self) -> None:
        """Wait until ``status`` and ``headers`` are there. Raises `UpstreamError`."""
        while not self.status:
            if self._error is not None:
                raise self._error
            await self._wait()

    def taken(self) -> bytes:
        """Return what of the body has come and was not taken yet."""
        if not self._pieces:
            return b""
        found = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._buffered = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return found

    async def piece(self) -> bytes:
        """Return the next piece of the body, b"" at its end. Raises `UpstreamError`."""
        while not self._pieces:
            if self.complete:
                return b""
            if self._error is not None:
                raise self._error
            await self._wait()
        return self.taken()

    def abort(self, why: str = "the exchange was given up", *, late: bool = False) -> None:
        """Cut the connection: the worker sees that nobody waits any more; whoever still does gets an error."""
        self._fail(why, late=late)

    @property
    def quiet(self) -> bool:
        """Whether it is the worker who does not go on, and not the client who does not take what is there."""
        return not self.complete and not self._paused

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, message: str, *, untouched: bool = False, late: bool = False) -> None:
        if self._error is None:
            self._error = UpstreamError(message, untouched=untouched, late=late)
        if self._transport is not None:
            self._transport.abort()
        self._wake()
