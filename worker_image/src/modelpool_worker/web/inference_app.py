"""The inference port: the capability's endpoints, models, probes and metrics."""

import time
from collections.abc import Mapping
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from modelpool_api import ROUTABLE_STATES
from modelpool_api.inference import HEADER_STATE, HEADER_WORKER
from modelpool_worker.capabilities import registry
from modelpool_worker.errors import ModelNotFoundError
from modelpool_worker.machine import Machine
from modelpool_worker.metrics import WorkerMetrics
from modelpool_worker.runner import Runner
from modelpool_worker.settings import WorkerSettings
from modelpool_worker.web.bearer import BearerToken
from modelpool_worker.web.body_budget import BodyBudget
from modelpool_worker.web.endpoint import Serving
from modelpool_worker.web.parts import HANDLERS, Guard, json_response
from modelpool_worker.web.token_gate import TokenGate

#: What the kubelet and Prometheus ask for.
_OPEN_PATHS: Final = frozenset({"/healthz", "/readyz", "/metrics"})


def create_app(
    settings: WorkerSettings,
    machine: Machine,
    runner: Runner,
    metrics: WorkerMetrics,
    *,
    entries: Mapping[str, registry.Entry] = registry.ENTRIES,
    token: BearerToken | None = None,
) -> ASGIApp:
    """Return the application of the inference port. It answers from the first moment, before a model is loaded.

    ``entries`` are the capabilities there are, with their endpoints. With a ``token`` only those who have it are
    served; probes and metrics are for everybody.
    """
    serving = Serving(settings, machine, runner, metrics, BodyBudget(settings.max_bodies_bytes))
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
    known = entries.get(settings.capability)
    for path, place in known.endpoints.items() if known else ():  # an unknown one fails the load, with its reason
        routes.append(Route(path, registry.find(place)(serving)))
    app = Starlette(routes=routes, exception_handlers=HANDLERS)
    app.router.redirect_slashes = False  # a redirect would lead wherever the client's Host header says
    gated = app if token is None else TokenGate(app, token, "inference", _OPEN_PATHS)
    return Guard(gated, {HEADER_WORKER: settings.worker_id})
