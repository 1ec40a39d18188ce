"""The way of a request to a worker and of its answer back: an ASGI application, bytes passed through as they come."""

import asyncio
import io
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import orjson
from multidict import CIMultiDict, CIMultiDictProxy

from modelpool_api import WorkerState
from modelpool_gateway import errors
from modelpool_gateway.breaker import BreakerState
from modelpool_gateway.directory import COMING, Directory, Key, Worker, model_key
from modelpool_gateway.errors import GatewayError
from modelpool_gateway.request import Asked, BadRequestError, read_json
from modelpool_gateway.waiting_room import RoomFullError, WaitedTooLongError, WaitingRoom

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

#: What workers serve; everything else of theirs is nobody's business.
PATHS: Final = frozenset({"/v1/embeddings", "/v1/chat/completions", "/v1/completions", "/v1/images/generations"})
#: Of one connection only (RFC 9110, 7.6.1), set by whoever sends, or the client's secret.
_DROPPED: Final = frozenset(
    (
        *("connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te"),
        *("trailer", "transfer-encoding", "upgrade", "host", "content-length", "expect", "authorization", "cookie"),
    )
)
_STATE: Final = "X-Modelpool-State"
#: Workers that are asked for one request, at most.
_TRIES: Final = 4
_PIECE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a request. ``hold_seconds``: how long it may wait for a worker that is on its way."""

    max_body_bytes: int = 8 * 1024 * 1024
    body_seconds: float = 30.0
    hold_seconds: float = 300.0
    answer_seconds: float = 600.0


class _ClientLeftError(Exception):
    """There is nobody to answer."""


class Proxy:
    """Serves the models of one namespace."""

    def __init__(
        self,
        namespace: str,
        directory: Directory,
        room: WaitingRoom[Key],
        session: aiohttp.ClientSession,
        limits: Limits,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._namespace = namespace
        self._directory = directory
        self._room = room
        self._session = session
        self._limits = limits
        self._monotonic = monotonic

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            await self._serve(scope, receive, send)
        except _ClientLeftError:
            return
        except GatewayError as error:
            await send({"type": "http.response.start", "status": error.status, "headers": error.headers()})
            await send({"type": "http.response.body", "body": error.body()})

    async def _serve(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["path"] not in PATHS:
            raise GatewayError(404, "unknown_path", f"no such path; expected one of {', '.join(sorted(PATHS))}")
        if scope["method"] != "POST":
            raise GatewayError(405, "method_not_allowed", "expected POST")
        body = await self._body(receive)
        try:
            asked = read_json(body)
        except BadRequestError as error:
            raise GatewayError(400, "invalid_request", str(error), param=error.param) from None
        headers = _passed_on((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
        work = asyncio.ensure_future(self._answer(scope["path"], asked, body, headers, send))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise _ClientLeftError
            work.result()
        finally:
            # both ended before we are: a worker sees that its client has left
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)

    async def _body(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size, most = 0, self._limits.max_body_bytes
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _ClientLeftError
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise GatewayError(413, "body_too_large", f"the body is larger than {most} bytes")
                    if not message.get("more_body"):
                        return parts[0] if len(parts) == 1 else b"".join(parts)
        except TimeoutError:
            late = f"the body did not arrive within {self._limits.body_seconds:g} s"
            raise GatewayError(408, "body_timeout", late) from None

    async def _answer(self, path: str, asked: Asked, body: bytes, headers: CIMultiDict[str], send: Send) -> None:
        tried: list[str] = []
        while True:
            worker = await self._worker(asked.model, tried)
            tried.append(worker.uid)
            worker.in_flight += 1
            trial = worker.breaker.state(self._monotonic()) is not BreakerState.CLOSED
            worker.breaker.began()
            try:
                if await self._ask(worker, path, body, headers, send):
                    return
            except asyncio.CancelledError:
                worker.breaker.abandoned()
                raise
            finally:
                worker.in_flight -= 1
                self._tell(worker, trial=trial)
            if len(tried) >= _TRIES:
                raise errors.cut_off()

    def _tell(self, worker: Worker, *, trial: bool) -> None:
        """Have those look again who wait for the end of a trial, or for the end of a pause that begins now."""
        key = model_key(worker)
        if trial:
            self._room.changed(key)
        if pause := worker.breaker.opens_in(self._monotonic()):
            asyncio.get_running_loop().call_later(pause, self._room.changed, key)

    async def _worker(self, model: str, tried: list[str]) -> Worker:
        """Return the worker to ask, waiting for one that is on its way. Raises `GatewayError`."""

        def look() -> Worker | None:
            found = self._directory.choose(self._namespace, model, self._monotonic(), tried)
            if found is None:
                _expect(list(self._directory.of(self._namespace, model)), tried)
            return found

        hold = self._limits.hold_seconds
        try:
            return await self._room.wait((self._namespace, model), look, hold)
        except RoomFullError:
            raise errors.too_many_wait() from None
        except WaitedTooLongError:
            raise errors.waited_too_long(hold) from None

    async def _ask(self, worker: Worker, path: str, body: bytes, headers: CIMultiDict[str], send: Send) -> bool:
        """Have one worker answer; return False where another one may be asked, as no byte was answered."""
        started = False
        limits = aiohttp.ClientTimeout(total=None, sock_connect=3, sock_read=self._limits.answer_seconds)
        try:
            async with self._session.post(
                worker.endpoint + path, data=_payload(body), headers=headers, timeout=limits, allow_redirects=False
            ) as answer:
                if answer.status == 503 and _STATE in answer.headers:
                    worker.gone = worker.gone or answer.headers[_STATE] == "Evicting"
                    worker.breaker.abandoned()
                    return False
                worker.breaker.succeeded()
                content = answer.headers.get("Content-Type", "")
                await send({"type": "http.response.start", "status": answer.status, "headers": _raw(answer.headers)})
                started = True
                async for part in answer.content.iter_any():
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
                return True
        except (aiohttp.ClientError, TimeoutError, OSError):
            worker.breaker.failed(self._monotonic())
            if started:
                await _break_off(send, stream=content.startswith("text/event-stream"))
            return started


def _expect(members: list[Worker], tried: Iterable[str]) -> None:
    """Raise what becomes of a request where nobody will serve it; return where somebody may, later."""
    if not members:
        raise errors.unknown_model()
    passed_over = set(tried)
    if any(member.state in COMING and not member.leaving for member in members):
        return
    if any(member.serves and member.uid not in passed_over for member in members):
        return  # its breaker is open: it is tried again after its pause
    failed = [member for member in members if member.state is WorkerState.FAILED]
    if failed:
        latest = max(failed, key=lambda member: member.version)
        raise errors.worker_failed(latest.reason, latest.message)
    raise errors.nobody_serves()


def _payload(body: bytes) -> bytes | io.BytesIO:
    """Return a large body in a form that the client sends piece by piece, with requests of others in between."""
    return body if len(body) <= _PIECE else io.BytesIO(body)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _break_off(send: Send, *, stream: bool) -> None:
    """End an answer that cannot be completed: a stream says so, anything else is left unfinished, which cuts it."""
    if stream:
        event = b"data: " + orjson.dumps({"error": errors.cut_off().content()}) + b"\n\n"
        await send({"type": "http.response.body", "body": event})


def _passed_on(headers: Iterable[tuple[str, str]]) -> CIMultiDict[str]:
    return CIMultiDict((name, value) for name, value in headers if name.lower() not in _DROPPED)


def _raw(headers: CIMultiDictProxy[str]) -> list[tuple[bytes, bytes]]:
    return [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in headers.items()
        if name.lower() not in _DROPPED or name.lower() == "content-length"
    ]
