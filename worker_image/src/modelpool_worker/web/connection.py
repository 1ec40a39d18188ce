"""One connection as the servers see it: what uvicorn does, and bounds for clients that never say what they want."""

import asyncio
import resource
import sys
from typing import Any, Final

import h11
import orjson
from uvicorn.protocols.http.h11_impl import H11Protocol

from modelpool_worker.errors import HeadersTooLargeError, InvalidRequestError

MAX_HEADER_BYTES: Final = 32 * 1024
#: From a connection's beginning, or the first byte of its next request, to the end of that request's headers.
HEAD_SECONDS: Final = 20.0
_MOST: Final = 2048
_SHARE_OF_FILES: Final = 4


def most_connections() -> int:
    """Return how many connections one port may have: so many that the process never runs out of files."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else max(16, min(_MOST, soft // _SHARE_OF_FILES))


class Connection(H11Protocol):
    """A connection that is closed when it is late with a request's head, or stands in the way of newer ones.

    Where there are too many the one that has waited longest without a request makes room: whoever has something to
    ask, such as a probe, gets in beside any number of those who say nothing.
    """

    head_seconds: float = HEAD_SECONDS
    most: int = most_connections()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._late: asyncio.TimerHandle | None = None
        self.quiet_since = self.loop.time()

    @property
    def asks(self) -> bool:
        """Whether a request is being served."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a new connection, and let another go where there are too many."""
        super().connection_made(transport)
        self._await_head()
        if len(self.connections) > self.most:
            quiet = [each for each in self.connections if isinstance(each, Connection) and not each.asks]
            # this one is the newest of them; it goes only where all others are being served
            min(quiet, key=lambda each: each.quiet_since).transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; what is no whole head yet has to become one in time."""
        super().data_received(data)
        if self.asks:
            self._stop_waiting()
        elif self._late is None and not self.transport.is_closing():
            self._await_head()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self.quiet_since = self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request in the shape of every other error, once; then close."""
        del msg
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            cause = sys.exc_info()[1]
            if isinstance(cause, h11.RemoteProtocolError) and cause.error_status_hint == HeadersTooLargeError.status:
                error: InvalidRequestError | HeadersTooLargeError = HeadersTooLargeError(
                    f"the request's headers are too large; expected at most {MAX_HEADER_BYTES} bytes"
                )
            else:
                error = InvalidRequestError(
                    "this is no valid HTTP/1.1 request; expected a Host header, printable ASCII in path and headers, "
                    "and either Content-Length or chunks"
                )
            body = orjson.dumps(error.body())
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
            ]
            for event in (
                h11.Response(status_code=error.status, headers=headers),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _await_head(self) -> None:
        self._late = self.loop.call_later(self.head_seconds, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
