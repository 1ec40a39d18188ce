"""An answer that is sent bit by bit: server-sent events straight to ASGI."""

from collections.abc import Awaitable, Callable
from typing import Final

from starlette.types import Send

_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # nginx would hold events back until it has a bufferful
    (b"x-accel-buffering", b"no"),
]


class EventStream:
    """One answer's events. The status goes out with the first of them, so that until then an error can be told by it.

    A stream without ``end`` is cut off by the server when its request is done: no client takes it for complete.
    """

    def __init__(self, send: Send, in_time: Callable[[Awaitable[None]], Awaitable[None]]) -> None:
        self._send = send
        self._in_time = in_time
        self.started = False

    async def write(self, events: bytes) -> None:
        """Send events; raise ``ClientLeftError`` when the client does not take them in time."""
        await self._in_time(self._sent(events, more=True))

    async def end(self, events: bytes) -> None:
        """Send the last events and end the answer; raise as ``write`` does."""
        await self._in_time(self._sent(events, more=False))

    async def _sent(self, events: bytes, *, more: bool) -> None:
        if not self.started:
            self.started = True
            await self._send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        await self._send({"type": "http.response.body", "body": events, "more_body": more})
