"""What both ports share: bounded bodies, JSON answers, a guard that tells nobody what is inside."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import orjson
import structlog
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modelpool_worker.errors import (
    BodyTooLargeError,
    InferenceFailedError,
    InvalidRequestError,
    MethodNotAllowedError,
    PathNotFoundError,
    RequestError,
    RequestTimeoutError,
)
from modelpool_worker.logs import where
from modelpool_worker.web.body_budget import Held

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")

#: The rest of a request that was refused half-read must not be taken for the next one.
_CLOSE = {"Connection": "close"}


class ClientLeftError(Exception):
    """The client closed its connection before it had its answer: nobody is left to tell."""


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON answer; ``content`` may be ready-made bytes."""
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    return Response(body, status_code=status, headers=dict(headers or {}), media_type="application/json")


def error_response(error: RequestError) -> Response:
    """Return an error in OpenAI's shape."""
    return json_response(error.body(), error.status, error.headers)


async def _on_http_exception(_request: Request, error: Exception) -> Response:
    """Turn the router's 404 and 405 into errors of our shape."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 405:
        headers = error.headers if isinstance(error, HTTPException) else None
        return error_response(MethodNotAllowedError("this path does not take that method", headers=headers))
    return error_response(PathNotFoundError("there is no such path here; expected for example /v1/models"))


async def _on_request_error(_request: Request, error: Exception) -> Response:
    """Tell a client what was wrong with its request."""
    if isinstance(error, RequestError):
        return error_response(error)
    raise error


async def _on_client_left(_request: Request, _error: Exception) -> Response:
    """Answer into the void: nobody reads it."""
    return Response(status_code=499)


async def _on_unexpected(_request: Request, _error: Exception) -> Response:
    """Say that it is our fault, and nothing of what it was; the guard logs it."""
    return error_response(InferenceFailedError("the worker failed on this request; its log has the details"))


HANDLERS: Final[Mapping[Any, Callable[[Request, Exception], Awaitable[Response]]]] = {
    404: _on_http_exception,
    405: _on_http_exception,
    RequestError: _on_request_error,
    ClientLeftError: _on_client_left,
    Exception: _on_unexpected,
}


async def read_body(scope: Scope, receive: Receive, *, limit: int, seconds: float, held: Held | None = None) -> bytes:
    """Read a request's body, at most ``limit`` bytes within ``seconds``; counted while it arrives, and in ``held``.

    Raises ``BodyTooLargeError``, ``RequestTimeoutError``, ``InvalidRequestError`` (compressed), ``ClientLeftError``,
    and ``QueueFullError`` where the bodies of all requests together are too large.
    """
    headers = Headers(scope=scope)
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise InvalidRequestError("compressed bodies are not taken; send plain JSON", headers=_CLOSE)
    length = headers.get("content-length", "")
    if length.isdigit() and int(length[:20]) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    try:
        async with asyncio.timeout(seconds):
            await _read_chunks(receive, chunks, limit, held)
        return b"".join(chunks)
    except TimeoutError:
        raise RequestTimeoutError(
            f"the body did not arrive within {seconds:g} s; send it faster or in smaller parts", headers=_CLOSE
        ) from None
    finally:
        chunks.clear()  # an error remembers this frame, and would keep what has arrived for a while


async def _read_chunks(receive: Receive, chunks: list[bytes], limit: int, held: Held | None) -> None:
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeftError
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        if held is not None:
            held.take(len(chunk))
        chunks.append(chunk)
        if not message.get("more_body", False):
            return


def _too_large(limit: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"the body is too large; expected at most {limit} bytes", headers=_CLOSE)


async def unless_left(receive: Receive, work: Awaitable[_T]) -> _T:
    """Return what ``work`` returns; if the client leaves before, cancel it and raise ``ClientLeftError``.

    To be used once the body has been read: from then on a connection has nothing to say but that it is gone.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientLeftError
        return task.result()
    finally:
        for future in (task, gone):
            future.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Guard:
    """The outermost layer of a port: refuses ambiguous framing, and lets no exception's text reach anybody.

    Every answer carries ``headers``.
    """

    def __init__(self, app: ASGIApp, headers: Mapping[str, str] | None = None) -> None:
        self._app = app
        self._headers = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        started = False

        async def tell(message: Message) -> None:
            nonlocal started
            if not started and message["type"] == "http.response.start":
                started = True
                # never added to: the list may be everybody's
                message = {**message, "headers": [*message.get("headers", ()), *self._headers]}
            await send(message)

        names = [name for name, _value in scope["headers"]]
        if names.count(b"content-length") > 1 or (b"content-length" in names and b"transfer-encoding" in names):
            error = InvalidRequestError("the request gives its length twice; expected one way", headers=_CLOSE)
            await error_response(error)(scope, receive, tell)
            return

        try:
            await self._app(scope, receive, tell)
        except ClientLeftError:
            return
        except Exception as error:
            # not log.exception(): the message of a library's exception may quote the client
            _log.error("request failed", error=type(error).__name__, where=where(error))
            if not started:
                failed = InferenceFailedError("the worker failed on this request; its log has the details")
                await error_response(failed)(scope, receive, tell)
