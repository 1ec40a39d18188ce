"""Bodies of requests, read as a whole before anything is decided: bounded in size, in time, and all together."""

import asyncio
from dataclasses import dataclass
from typing import Final

from modelpool_gateway.asgi import Receive
from modelpool_gateway.errors import ClientLeftError, GatewayError

_MIB: Final = 1024 * 1024
#: Digits of a length that is read as a number; more are too large anyway.
_MAX_DIGITS: Final = 18


@dataclass(frozen=True, slots=True)
class BodyBounds:
    """Bytes of one body, bytes of all that are held at once, and seconds for one to arrive."""

    max_bytes: int = 8 * _MIB
    max_bytes_together: int = 64 * _MIB
    seconds: float = 30.0


class Bodies:
    """Reads bodies, and knows how many bytes of them are held. Used on the event loop's thread only."""

    def __init__(self, bounds: BodyBounds) -> None:
        self._bounds = bounds
        #: bytes of all bodies that are held now
        self.held = 0

    async def read(self, length: bytes | None, receive: Receive, *, arrived: bool = False) -> "Body":
        """Read a body; ``length`` is its declared Content-Length, None for one in chunks.

        ``arrived``: the whole of it is there already, as that of most requests is; no time is taken then. Raises
        `GatewayError`: 413 where it is too large, 429 where all together are, 408 where it is late, 400 where its
        length is no number. Raises `ClientLeftError`. Whoever gets the body lets it go in the end.
        """
        if length is not None:
            self._check(length)
        body = Body(self)
        try:
            if arrived:
                await self._receive(body, receive)
                return body
            async with asyncio.timeout(self._bounds.seconds):
                await self._receive(body, receive)
        except TimeoutError:
            body.let_go()
            raise GatewayError(
                408, "body_timeout", f"the body did not arrive within {self._bounds.seconds:g} s"
            ) from None
        except BaseException:
            body.let_go()
            raise
        return body

    async def _receive(self, body: "Body", receive: Receive) -> None:
        pieces: list[bytes] = []
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientLeftError
            piece: bytes = message.get("body", b"")
            self._take(body, len(piece))
            pieces.append(piece)
            if not message.get("more_body"):
                body.data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
                return

    def _check(self, length: bytes) -> None:
        """Refuse a declared length before the body is read, where it would be refused in the end."""
        if not length.isdigit() or len(length) > _MAX_DIGITS:
            raise GatewayError(400, "invalid_request", "Content-Length is no number; expected one such as 1024")
        if int(length) > self._bounds.max_bytes:
            raise self._too_large()
        if self.held and self.held + int(length) > self._bounds.max_bytes_together:
            raise _too_much()

    def _take(self, body: "Body", count: int) -> None:
        """Hold so many bytes more. One body alone always may be held: its size is bounded by itself."""
        if body.size + count > self._bounds.max_bytes:
            raise self._too_large()
        if self.held > body.size and self.held + count > self._bounds.max_bytes_together:
            raise _too_much()
        body.size += count
        self.held += count

    def _too_large(self) -> GatewayError:
        return GatewayError(413, "body_too_large", f"the body is larger than {self._bounds.max_bytes} bytes")


class Body:
    """The bytes of one request, held until they are needed no more."""

    __slots__ = ("_bodies", "data", "size")

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self.data = b""
        #: bytes that count as held
        self.size = 0

    def let_go(self) -> None:
        """Give the bytes back; again does nothing."""
        self._bodies.held -= self.size
        self.size, self.data = 0, b""


def _too_much() -> GatewayError:
    said = "the bodies of the requests that are held now are too large together; try again in a moment"
    return GatewayError(429, "bodies_too_large", said, retry_after=1)
