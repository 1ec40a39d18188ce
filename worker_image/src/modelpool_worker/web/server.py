"""Two HTTP servers in one event loop, with our own signal handling."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from modelpool_worker.web.connection import MAX_HEADER_BYTES, Connection

_BACKLOG: Final = 1024
_KEEP_ALIVE_SECONDS: Final = 75
_CLOSING_SECONDS: Final = 5


class Server(uvicorn.Server):
    """A uvicorn server that leaves the signals to the worker."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none: SIGTERM means drain, which the runner does."""
        yield


def create_server(app: ASGIApp) -> Server:
    """Return a server without access log; connections, headers and the time for them are bounded."""
    config = uvicorn.Config(
        app,
        # h11 bounds the headers and is strict about framing; the parser's speed does not matter beside a model
        http=Connection,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_CLOSING_SECONDS,
    )
    return Server(config)


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket; an empty host means every address, IPv6 included where the machine has it.

    Raises ``OSError``.
    """
    both = not host and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both or ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is named; else answers wait 40 ms for an ACK
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if both else 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
