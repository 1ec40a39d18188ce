"""One request to one worker, and the answer back: bytes are passed on as they come."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

import orjson

from modelpool_api.inference import HEADER_STATE
from modelpool_gateway import errors
from modelpool_gateway.asgi import Message
from modelpool_gateway.directory import Worker
from modelpool_gateway.errors import ClientLeftError
from modelpool_gateway.headers import WORKER, answer_headers, find, request_head
from modelpool_gateway.pool import Pool
from modelpool_gateway.progress import error_event
from modelpool_gateway.ticket import Ticket
from modelpool_gateway.upstream import Connection, UpstreamError

#: A worker that takes no requests says in which state it is.
_STATE: Final = HEADER_STATE.lower().encode()
_FULL: Final = 429
#: Answers that have no body, nor a length.
_BODILESS: Final = frozenset({204, 304})
_MAX_ERROR_BYTES: Final = 16 * 1024
_EVENTS: Final = b"text/event-stream"


class BrokenOffError(Exception):
    """The worker's answer broke off when a part of it had been passed on; the client has been told."""


class Relay:
    """Asks workers. ``token_of`` gives the token of a pool whose workers' ports are closed, None for others.

    A client that does not take what is sent to it within ``client_seconds`` has left. ``closed_again`` is told of each
    worker whose breaker an answer has closed. ``goes_on`` says whether a request that its worker has no room for goes
    to another one, or to it again.
    """

    def __init__(
        self,
        pool: Pool,
        token_of: Callable[[str], str | None],
        client_seconds: float = 60.0,
        closed_again: Callable[[Worker], None] = lambda _worker: None,
        goes_on: Callable[[Ticket], bool] = lambda _ticket: False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._token_of = token_of
        self._client_seconds = client_seconds
        self._closed_again, self._goes_on = closed_again, goes_on
        self._monotonic = monotonic

    async def ask(self, ticket: Ticket, worker: Worker) -> bool:
        """Have a worker answer; return False where the request goes on to another one, or waits.

        So it is where a worker takes no requests, has no room for this one, or is another's by now.

        Raises `UpstreamError` where it failed before a byte of its answer was passed on, `BrokenOffError` where it
        failed later, `ClientLeftError` and `GatewayError`.
        """
        endpoint, leaving = worker.endpoint, ticket.leaving
        connection = self._pool.rested(endpoint)
        try:
            if connection is None:
                connection = await self._connected(ticket, endpoint)
            try:
                await self._begin(ticket, worker, connection)
            except UpstreamError as error:
                if not error.untouched or leaving.left:
                    raise
                self._pool.give(endpoint, connection)
                connection = None
                connection = await self._connected(ticket, endpoint)
                await self._begin(ticket, worker, connection)
            if connection.status >= 400 and (state := _refuses(connection, worker)) is not None:
                worker.refused(state, ticket.token, self._monotonic())
                return False
            if worker.breaker.succeeded():
                self._closed_again(worker)
            if connection.status == _FULL and self._goes_on(ticket):
                return False
            ticket.body.let_go()
            await self._pass_on(ticket, connection)
        except UpstreamError:
            if leaving.left:
                raise ClientLeftError from None
            raise
        finally:
            leaving.then = None
            if connection is not None:
                self._pool.give(endpoint, connection)
        return True

    async def _connected(self, ticket: Ticket, endpoint: str) -> Connection:
        with ticket.leaving.cancels():
            return await self._pool.take(endpoint, fresh=True)

    async def _begin(self, ticket: Ticket, worker: Worker, connection: Connection) -> None:
        """Send the request and wait for the head of the answer."""
        leaving = ticket.leaving
        leaving.then = connection.abort
        if leaving.left:
            raise ClientLeftError
        body, token = ticket.body.data, self._token_of(worker.pool)
        head = request_head(ticket.path, ticket.query, worker.endpoint, len(body), token, ticket.lines)
        connection.send(head, body)
        await connection.head()

    async def _pass_on(self, ticket: Ticket, connection: Connection) -> None:
        if ticket.headed and not _is_stream(connection):
            await self._pass_on_error(ticket, connection)
            return
        try:
            piece = connection.taken()
            if connection.complete and not ticket.headed and connection.status not in _BODILESS:
                ticket.status = connection.status
                if ticket.leaving.answer(connection.status, answer_headers(connection.headers), piece):
                    return
            if not ticket.headed:
                if piece or connection.complete:
                    ticket.leaving.join_head()
                ticket.status, headers = connection.status, answer_headers(connection.headers)
                await self._send(
                    ticket, {"type": "http.response.start", "status": connection.status, "headers": headers}
                )
            while not connection.complete:
                if piece:
                    await self._send(ticket, {"type": "http.response.body", "body": piece, "more_body": True})
                piece = await connection.piece()
            piece += connection.taken()
            await self._send(ticket, {"type": "http.response.body", "body": piece})
        except UpstreamError as error:
            if ticket.leaving.left:
                raise
            await self._break_off(ticket, _is_stream(connection), error)

    async def _pass_on_error(self, ticket: Ticket, connection: Connection) -> None:
        """Tell a client whose stream has begun what the worker has answered instead of one."""
        try:
            content = _error_in(await _whole(connection))
        except UpstreamError:
            if ticket.leaving.left:
                raise
            content = None
        event = error_event(errors.worker_error().content() if content is None else content)
        ticket.status = connection.status
        await self.end_with(ticket, event)

    async def _break_off(self, ticket: Ticket, stream: bool, cause: UpstreamError) -> None:
        """End an answer that cannot be completed: a stream says so first; then it is cut, as anything else is."""
        error = errors.answer_late() if cause.late else errors.cut_off()
        if stream:
            await self.end_with(ticket, error_event(error.content()))
        else:
            ticket.leaving.cut()
        raise BrokenOffError(str(cause)) from cause

    async def end_with(self, ticket: Ticket, event: bytes) -> None:
        """End a stream that has begun with an event that says why; the cut shows that it is not complete."""
        if ticket.leaving.reads_late:
            ticket.leaving.cut()
            return
        await ticket.send({"type": "http.response.body", "body": event, "more_body": True})
        ticket.leaving.end()

    async def _send(self, ticket: Ticket, message: Message) -> None:
        if not ticket.leaving.reads_late:
            await ticket.send(message)
            return
        try:
            async with asyncio.timeout(self._client_seconds):
                await ticket.send(message)
        except TimeoutError:
            ticket.leaving.cut()
            raise ClientLeftError from None


def _refuses(connection: Connection, worker: Worker) -> bytes | None:
    """Return the state in which a worker takes no requests, b"" where the address is another worker's, else None.

    Who it is it says by a header: its errors tell of the request as well, which is the client's to write. One that does
    not say who it is is taken for the one that was asked. Raises `GatewayError` where it does not take the gateway's
    token: the client, whose key is another, must not think that his is meant.
    """
    who = find(connection.headers, WORKER)
    if who and who != worker.uid.encode():
        return b""
    if connection.status == 503:
        return find(connection.headers, _STATE) or None
    if connection.status in (401, 403):
        raise errors.worker_refused_us()
    return None


async def _whole(connection: Connection) -> bytes:
    """Return the body of an answer; one that is longer than any error of a worker's is cut."""
    body = b""
    while len(body) <= _MAX_ERROR_BYTES and (piece := await connection.piece()):
        body += piece
    return body


def _error_in(body: bytes) -> dict[str, Any] | None:
    """Return the error object of an answer in OpenAI's shape."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    found = content.get("error") if isinstance(content, dict) else None
    return found if isinstance(found, dict) else None


def _is_stream(connection: Connection) -> bool:
    return find(connection.headers, b"content-type").startswith(_EVENTS)
