"""A port, or all of it but the probes, that asks for the pool's token."""

from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from modelpool_worker.errors import RequestError
from modelpool_worker.web.bearer import BearerToken
from modelpool_worker.web.parts import error_response


class UnauthorizedError(RequestError):
    """The pool's token is missing or wrong: 401."""

    status = 401
    kind = "authentication_error"
    code = "unauthorized"


class TokenGate:
    """Lets pass only what carries the pool's bearer token, whatever the path, but for the paths that are open."""

    def __init__(self, app: ASGIApp, token: BearerToken, port: str, open_paths: Collection[str] = ()) -> None:
        self._app = app
        self._token = token
        self._port = port
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        closed = scope["type"] == "http" and scope["path"] not in self._open_paths
        if closed and not self._token.allows(_authorization(scope)):
            error = UnauthorizedError(
                f"the {self._port} port needs the pool's token: Authorization: Bearer TOKEN",
                headers={"WWW-Authenticate": "Bearer", "Connection": "close"},
            )
            await error_response(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _authorization(scope: Scope) -> str | None:
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    return values[0].decode("latin-1") if len(values) == 1 else None
