"""The inference port: embeddings, models, probes and metrics."""

import asyncio
import time
from collections.abc import Awaitable
from functools import partial
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from modelpool_api import ROUTABLE_STATES, Capability
from modelpool_worker.embeddings import encode_answer, parse_request
from modelpool_worker.errors import (
    HEADER_STATE,
    MethodNotAllowedError,
    ModelNotFoundError,
    NotServingError,
    QueueFullError,
    RequestError,
)
from modelpool_worker.http_parts import (
    HANDLERS,
    ClientLeftError,
    Guard,
    error_response,
    json_response,
    read_body,
    unless_left,
)
from modelpool_worker.machine import Machine
from modelpool_worker.metrics import WorkerMetrics
from modelpool_worker.runner import Runner
from modelpool_worker.settings import WorkerSettings

#: Answers with more numbers than this are encoded beside the event loop.
_BIG_ANSWER: Final = 16_384
#: Bodies of more bytes than this are read beside the event loop.
_BIG_BODY: Final = 65_536


class Embeddings:
    """``POST /v1/embeddings`` as an ASGI application: a request is pending until its answer is sent."""

    def __init__(self, settings: WorkerSettings, machine: Machine, runner: Runner, metrics: WorkerMetrics) -> None:
        self._settings = settings
        self._machine = machine
        self._runner = runner
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request and count how it ended."""
        if scope["method"] != "POST":
            error = MethodNotAllowedError("expected POST with a JSON body", headers={"Allow": "POST"})
            await error_response(error)(scope, receive, send)
            return
        outcome = "failed"
        try:
            outcome = await self._serve(scope, receive, send)
        except ClientLeftError:
            outcome = "client_left"
        except RequestError as error:
            outcome = _outcome(error)
            await error_response(error)(scope, receive, send)
        finally:
            self._metrics.requests.labels(outcome).inc()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> str:
        settings = self._settings
        # refused before its body is read where it would be refused anyway; decided again when it is admitted
        self._machine.check_serving()
        body = await self._while_serving(
            read_body(scope, receive, limit=settings.max_body_bytes, seconds=settings.body_timeout_seconds)
        )
        parse = partial(
            parse_request, body, model_name=settings.model_name, vector_size=self._runner.loaded.vector_size
        )
        request = await asyncio.to_thread(parse) if len(body) > _BIG_BODY else parse()
        del body, parse
        with self._runner.admitted(len(request.inputs)) as job, self._metrics.latency.time():
            vectors, tokens = await unless_left(receive, self._runner.compute(job, request.inputs))
            if sum(len(vector) for vector in vectors) > _BIG_ANSWER:
                content = await asyncio.to_thread(
                    encode_answer, request, vectors, model_name=settings.model_name, tokens=tokens
                )
            else:
                content = encode_answer(request, vectors, model_name=settings.model_name, tokens=tokens)
            self._metrics.tokens.inc(tokens)
            try:
                # a client that does not read its answer would hold its place for ever
                async with asyncio.timeout(settings.answer_timeout_seconds):
                    await json_response(content)(scope, receive, send)
            except TimeoutError:
                raise ClientLeftError from None
        return "ok"

    async def _while_serving(self, reading: Awaitable[bytes]) -> bytes:
        """Return what is read; once the worker takes nothing new, what is still arriving is refused like the rest."""
        task = asyncio.ensure_future(reading)
        leaving = asyncio.ensure_future(self._left())
        try:
            await asyncio.wait((task, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                self._machine.check_serving()
            return await task
        finally:
            for future in (task, leaving):
                future.cancel()
            await asyncio.gather(task, leaving, return_exceptions=True)

    async def _left(self) -> None:
        while self._machine.state in ROUTABLE_STATES:
            await self._machine.changed(None)


def _outcome(error: RequestError) -> str:
    if isinstance(error, QueueFullError):
        return "queue_full"
    if isinstance(error, NotServingError):
        return "not_serving"
    return "invalid" if error.status < 500 else "failed"


def create_app(settings: WorkerSettings, machine: Machine, runner: Runner, metrics: WorkerMetrics) -> ASGIApp:
    """Return the application of the inference port. It answers from the first moment, before a model is loaded."""
    created = int(time.clock_gettime(time.CLOCK_REALTIME))
    model = {"id": settings.model_name, "object": "model", "created": created, "owned_by": "modelpool"}

    async def healthz(_request: Request) -> Response:
        return json_response({"status": "ok"})

    async def readyz(_request: Request) -> Response:
        state = machine.state
        ready = state in ROUTABLE_STATES
        return json_response({"state": str(state)}, 200 if ready else 503, {HEADER_STATE: str(state)})

    async def models(_request: Request) -> Response:
        return json_response({"object": "list", "data": [model]})

    async def one_model(request: Request) -> Response:
        if request.path_params["name"] != settings.model_name:
            raise ModelNotFoundError(f"this worker serves another model; expected /v1/models/{settings.model_name}")
        return json_response(model)

    async def show_metrics(_request: Request) -> Response:
        return Response(generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    routes = [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", show_metrics),
        Route("/v1/models", models),
        Route("/v1/models/{name:path}", one_model),
    ]
    if settings.capability == Capability.TEXT_EMBEDDING:
        routes.append(Route("/v1/embeddings", Embeddings(settings, machine, runner, metrics)))
    app = Starlette(routes=routes, exception_handlers=HANDLERS)
    app.router.redirect_slashes = False  # a redirect would lead wherever the client's Host header says
    return Guard(app)
