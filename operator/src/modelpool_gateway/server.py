"""The HTTP server: uvicorn on httptools, with bounds for heads, and a word to the application when a client leaves."""

import asyncio
import resource
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from modelpool_api.listener import open_listener
from modelpool_gateway.errors import ClientLeftError, GatewayError

#: Where the application finds `Leaving` in the scope's extensions.
LEAVING: Final = "modelpool.leaving"
MAX_HEAD_BYTES: Final = 32 * 1024
#: Bytes of a header besides its name and value.
_BESIDES: Final = len(b": \r\n")
#: From a connection's beginning, or the first byte of its next request, to the end of that request's head, seconds.
HEAD_SECONDS: Final = 20.0
_BACKLOG: Final = 4096
#: Bytes that are sooner copied than sent by two buffers.
_SMALL: Final = 16 * 1024
_KEEP_ALIVE_SECONDS: Final = 75
_MOST: Final = 16_384
_LAST_WORD_SECONDS: Final = 5.0


class Outlet:
    """A transport as uvicorn uses it, whose writes can be joined: an answer's head and body in one piece."""

    __slots__ = ("_held", "_join", "_transport", "is_closing", "pause_reading", "resume_reading")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._join, self._held = False, b""
        self.is_closing = transport.is_closing
        self.pause_reading, self.resume_reading = transport.pause_reading, transport.resume_reading

    def join_next(self) -> None:
        """Have the next write wait for the one after it; whoever says so makes that one at once."""
        self._join = True

    def write(self, data: bytes) -> None:
        """Write, or hold back until the next write; after the end nobody reads it, which is no error."""
        if self.is_closing():
            return
        if self._join:
            self._join, self._held = False, data
        elif self._held:
            held, self._held = self._held, b""
            if len(data) <= _SMALL:
                self._transport.write(held + data)
            else:
                self._transport.writelines((held, data))
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Close once everything is written."""
        if self._held:
            self.write(b"")
        self._transport.close()

    def abort(self) -> None:
        """Cut the connection."""
        self._transport.abort()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the transport knows."""
        return self._transport.get_extra_info(name, default)


class Leaving:
    """Whether the client of a request has left; ``then`` is called when it does."""

    __slots__ = ("_connection", "arrived", "cycle", "left", "then")

    def __init__(self, connection: "Connection") -> None:
        self.left = False
        #: the request is there as a whole
        self.arrived = False
        self.then: Callable[[], object] | None = None
        #: uvicorn's account of request and answer, once the head is there
        self.cycle: RequestResponseCycle | None = None
        self._connection = connection

    @property
    def reads_late(self) -> bool:
        """Whether the client has not taken yet what was sent: the next bytes have to wait."""
        return self._connection.flow.write_paused

    def join_head(self) -> None:
        """Send the head of the answer, which is sent next, together with what follows it at once."""
        self._connection.outlet.join_next()

    def answer(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bool:
        """Send an answer that is there as a whole, by one write; False where that cannot be, and nothing was sent.

        The same as by ASGI's messages in less time: a server has parsed the headers already, and sound they are.
        """
        cycle = self.cycle
        if cycle is None or cycle.disconnected or cycle.response_started or self.reads_late:
            return False
        cycle.response_started = cycle.response_complete = True
        lines = [STATUS_LINE[status]]
        for name, value in headers:
            if name != b"content-length":
                lines += (name, b": ", value, b"\r\n")
        lines.append(b"content-length: %d\r\n" % len(body))
        if not cycle.keep_alive:
            lines.append(b"connection: close\r\n")
        lines += (b"\r\n", body)
        cycle.transport.write(b"".join(lines))
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()
        return True

    def cut(self) -> None:
        """Cut the connection: what the client has of the answer is not the whole of it."""
        self._connection.transport.abort()

    def end(self) -> None:
        """Cut the connection once the client has what was sent, which it has little time for."""
        transport = self._connection.transport
        transport.close()
        self._connection.loop.call_later(_LAST_WORD_SECONDS, transport.abort)

    @contextmanager
    def cancels(self) -> Iterator[None]:
        """Cancel what the present task waits for when the client leaves. Raises `ClientLeftError` then."""
        task = asyncio.current_task()
        if self.left or task is None:
            raise ClientLeftError
        self.then = task.cancel
        try:
            yield
        except asyncio.CancelledError:
            if not self.left:
                raise
            task.uncancel()
            raise ClientLeftError from None
        finally:
            self.then = None

    def happened(self) -> None:
        """The client has left."""
        self.left, self.cycle = True, None
        if self.then is not None:
            self.then()


def most_connections() -> int:
    """Return how many clients may be connected: each may need a second connection, to a worker."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else max(16, min(_MOST, soft // 3))


class Connection(HttpToolsProtocol):
    """A connection that is closed when it is late with a request's head or its head is too large."""

    head_seconds: float = HEAD_SECONDS
    most: int = most_connections()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._late: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._in_head = True
        self._leaving: list[Leaving] = []

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a new connection."""
        self.outlet = Outlet(transport)
        super().connection_made(cast("asyncio.Transport", self.outlet))
        self._await_head()
        if len(self.connections) > self.most:
            said = f"{self.most} clients are connected already"
            self._refuse(GatewayError(503, "too_many_connections", said, retry_after=2))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever works for the client."""
        self._stop_waiting()
        super().connection_lost(exc)
        leaving, self._leaving = self._leaving, []
        for each in leaving:
            each.happened()
        # both lead to us: nobody has to look for such circles, of which a thousand connections leave a thousand
        self.cycle, self.scope = None, {}  # type: ignore[assignment, typeddict-item]

    def data_received(self, data: bytes) -> None:
        """Take bytes; a head has to end in time and be small."""
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if not self._in_head or not self._head_bytes or self.outlet.is_closing():
            return
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(_head_too_large())
        elif self._late is None:
            self._await_head()

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._in_head = True
        leaving = Leaving(self)
        self._leaving.append(leaving)
        self.scope["extensions"] = {LEAVING: leaving}  # type: ignore[dict-item]

    def on_headers_complete(self) -> None:
        """The head is there."""
        came, self._in_head, self._head_bytes = self._head_bytes, False, 0
        self._stop_waiting()
        if came > MAX_HEAD_BYTES and self._size_of_head() > MAX_HEAD_BYTES:  # what has come may be body, too
            self._refuse(_head_too_large())
            return
        super().on_headers_complete()
        self._leaving[-1].cycle = self.cycle
        if cast("State", self.server_state).leaving:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """The request is there as a whole; the next one begins with a head."""
        super().on_message_complete()
        if self._leaving:  # else it has been answered before
            self._leaving[-1].arrived = True
        self._in_head = True
        self._stop_waiting()

    def on_response_complete(self) -> None:
        """Forget who waited for this answer: the oldest. What is still to come of its request is read and dropped."""
        if self._leaving:
            self._leaving.pop(0).cycle = None  # which leads to it in turn: nobody has to look for such circles
        super().on_response_complete()
        if not self._in_head and self.cycle.response_complete and self._late is None:
            self._await_head()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request in the shape of every other error; then close."""
        del msg
        self._refuse(GatewayError(400, "invalid_request", "this is no valid HTTP/1.1 request"))

    def _size_of_head(self) -> int:
        return sum(len(name) + len(value) + _BESIDES for name, value in self.headers)

    def _refuse(self, error: GatewayError) -> None:
        if self.transport.is_closing():
            return
        body = error.body()
        head = f"HTTP/1.1 {error.status} Refused\r\ncontent-type: application/json\r\nconnection: close\r\n"
        if self.cycle is None or self.cycle.response_complete:  # never into the middle of another answer
            self.transport.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        self.transport.close()

    def _await_head(self) -> None:
        self._late = self.loop.call_later(self.head_seconds, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def _head_too_large() -> GatewayError:
    return GatewayError(431, "headers_too_large", f"the head is larger than {MAX_HEAD_BYTES} bytes")


class State(ServerState):
    """What all connections of a server know."""

    leaving = False


class Server(uvicorn.Server):
    """A uvicorn server that leaves the signals to the gateway."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.server_state: State = State()

    def leave(self) -> None:
        """Go on serving, and close each connection with its next answer: clients connect elsewhere by and by."""
        self.server_state.leaving = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none: SIGTERM means drain."""
        yield


def create_server(app: Any, drain_seconds: float) -> Server:
    """Return a server without access log; connections, heads and the time for them are bounded."""
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(drain_seconds)),
    )
    return Server(config)


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket, as `open_listener` says. Raises ``OSError``."""
    return open_listener(host, port, _BACKLOG)
