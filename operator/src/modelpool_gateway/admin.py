"""The gateway's second port: whether it lives, whether it takes requests, and its metrics."""

from collections.abc import Callable

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from modelpool_gateway import asgi, errors
from modelpool_gateway.asgi import Message, Receive, Send
from modelpool_gateway.errors import GatewayError


class Admin:
    """An ASGI application for probes and scrapes.

    ``alive`` is false where the process had better be started anew, ``ready`` where requests had better go elsewhere.
    """

    def __init__(self, alive: Callable[[], bool], ready: Callable[[], bool], registry: CollectorRegistry) -> None:
        self._alive, self._ready, self._registry = alive, ready, registry

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request."""
        del receive
        try:
            status, kind, body = self._answer(scope["method"], scope["path"])
        except GatewayError as error:
            await asgi.answer(send, error.status, error.headers(), error.body())
            return
        await asgi.answer(send, status, [(b"content-type", kind.encode())], body)

    def _answer(self, method: str, path: str) -> tuple[int, str, bytes]:
        if path == "/metrics":
            found = 200, CONTENT_TYPE_LATEST, generate_latest(self._registry)
        elif path in ("/healthz", "/readyz"):
            good = self._alive() if path == "/healthz" else self._ready()
            found = 200 if good else 503, "application/json", orjson.dumps({"ok": good})
        else:
            raise GatewayError(404, "unknown_path", "no such path; expected /healthz, /readyz or /metrics")
        if method != "GET":
            raise errors.method_not_allowed("GET")
        return found
