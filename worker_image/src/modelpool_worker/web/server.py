"""Two HTTP servers in one event loop, with our own signal handling."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from modelpool_api.listener import open_listener
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
    """Open a listening socket, as `open_listener` says. Raises ``OSError``."""
    return open_listener(host, port, _BACKLOG)
