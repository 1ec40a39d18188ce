"""What every inference endpoint does: admission, bounded bodies, a client that leaves, how a request ended."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from modelpool_api import ROUTABLE_STATES
from modelpool_worker.errors import (
    MethodNotAllowedError,
    NotServingError,
    QueueFullError,
    RequestError,
    TooFarBehindError,
)
from modelpool_worker.machine import Machine
from modelpool_worker.metrics import WorkerMetrics
from modelpool_worker.runner import Runner
from modelpool_worker.settings import WorkerSettings
from modelpool_worker.web.body_budget import BodyBudget, Held
from modelpool_worker.web.parts import ClientLeftError, error_response, read_body

_T = TypeVar("_T")

#: Bodies of more bytes than this are read beside the event loop.
_BIG_BODY: Final = 65_536
#: Where in its scope a request finds what it holds of the budget of bodies.
_HELD: Final = "modelpool.held"


@dataclass(frozen=True, slots=True)
class Serving:
    """What endpoints work with."""

    settings: WorkerSettings
    machine: Machine
    runner: Runner
    metrics: WorkerMetrics
    bodies: BodyBudget


class Endpoint:
    """``POST`` at one path, as an ASGI application: a request is pending until its answer is sent.

    A subclass has `serve`: read, parse, run, answer. What it raises becomes an answer here, so it raises
    ``RequestError`` only as long as it has sent nothing.
    """

    def __init__(self, serving: Serving) -> None:
        self.settings = serving.settings
        self.machine = serving.machine
        self.runner = serving.runner
        self.metrics = serving.metrics
        self._bodies = serving.bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request and count how it ended."""
        if scope["method"] != "POST":
            error = MethodNotAllowedError("expected POST with a body", headers={"Allow": "POST"})
            await error_response(error)(scope, receive, send)
            return
        outcome = "failed"
        try:
            # refused before its body is read where it would be refused anyway; decided again when it is admitted
            self.machine.check_serving()
            with self._bodies.hold() as held:
                outcome = await self.serve({**scope, _HELD: held}, receive, send)
        except ClientLeftError:
            outcome = "client_left"
        except RequestError as error:
            outcome = outcome_of(error)
            await error_response(error)(scope, receive, send)
        finally:
            self.metrics.requests.labels(outcome).inc()

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> str:
        """Serve one request; return how it ended, one of ``metrics.OUTCOMES``."""
        raise NotImplementedError

    async def body(self, scope: Scope, receive: Receive, limit: int | None = None) -> bytes:
        """Return the request's body, at most ``limit`` bytes (None: the setting's).

        Once the worker takes nothing new, a body that is still arriving is refused like the rest.
        """
        settings = self.settings
        limit, seconds = limit or settings.max_body_bytes, settings.body_timeout_seconds
        reading = read_body(scope, receive, limit=limit, seconds=seconds, held=self.held(scope))
        task = asyncio.ensure_future(reading)
        leaving = asyncio.ensure_future(self._left())
        try:
            await asyncio.wait((task, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                self.machine.check_serving()
            return await task
        finally:
            for future in (task, leaving):
                future.cancel()
            await asyncio.gather(task, leaving, return_exceptions=True)

    @staticmethod
    def held(scope: Scope) -> Held:
        """Return what counts the bytes that the worker keeps for this request: its body, and what it has fetched."""
        held: Held = scope[_HELD]
        return held

    @staticmethod
    async def parsed(body: bytes, parse: Callable[[bytes], _T]) -> _T:
        """Return what ``parse`` makes of the body; large ones are parsed beside the event loop."""
        return await asyncio.to_thread(parse, body) if len(body) > _BIG_BODY else parse(body)

    async def answer(self, response: Response, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a whole answer; raise ``ClientLeftError`` when the client does not take it in time."""
        await self.in_time(response(scope, receive, send))

    async def in_time(self, sending: Awaitable[None]) -> None:
        """Wait for something to be sent: a client that does not read would hold its place for ever."""
        try:
            async with asyncio.timeout(self.settings.answer_timeout_seconds):
                await sending
        except TimeoutError:
            raise ClientLeftError from None

    async def _left(self) -> None:
        while self.machine.state in ROUTABLE_STATES:
            await self.machine.changed(None)


def outcome_of(error: RequestError) -> str:
    """Return how a request ended that was refused or failed with ``error``."""
    if isinstance(error, QueueFullError):
        return "queue_full"
    if isinstance(error, NotServingError):
        return "not_serving"
    if isinstance(error, TooFarBehindError):
        return "client_left"
    return "invalid" if error.status < 500 else "failed"
