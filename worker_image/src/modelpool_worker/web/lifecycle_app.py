"""The lifecycle port: pings, and the request to stop. Nobody without the pool's token gets anything from it."""

from collections.abc import Callable
from typing import Final

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from modelpool_api import EvictRequest
from modelpool_api.wire import MAX_WAIT_SECONDS
from modelpool_worker.errors import InvalidRequestError, QueueFullError
from modelpool_worker.machine import Gauges, Machine
from modelpool_worker.web.bearer import BearerToken
from modelpool_worker.web.parts import (
    HANDLERS,
    Guard,
    json_response,
    read_body,
    unless_left,
)
from modelpool_worker.web.token_gate import TokenGate

_MAX_BODY_BYTES: Final = 4096
_BODY_SECONDS: Final = 5.0
#: Long-polls that may wait at once: one operator needs one, a handover two.
_MAX_PARKED: Final = 64
_MAX_IDLE_SECONDS: Final = 365 * 86_400.0


def create_app(
    machine: Machine, token: BearerToken, *, gauges: Callable[[], Gauges], wall_clock: Callable[[], float]
) -> ASGIApp:
    """Return the application of the lifecycle port. ``wall_clock`` gives Unix seconds, for people to read."""
    parked = 0

    def pong(status: int = 200) -> Response:
        content = machine.pong(gauges(), wall_clock()).model_dump_json(by_alias=True)
        return json_response(content.encode(), status)

    async def lifecycle(request: Request) -> Response:
        nonlocal parked
        after, wait, idle_after = _query(request)
        if idle_after is not None:
            machine.set_idle_timeout(idle_after)
        if after is not None and wait > 0:
            if parked >= _MAX_PARKED:
                raise QueueFullError("too many requests wait here already; ask again without wait", retry_after=1)
            parked += 1
            try:
                await unless_left(request.receive, machine.moved_on(*after, wait))
            finally:
                parked -= 1
        return pong()

    async def evict(request: Request) -> Response:
        body = await read_body(request.scope, request.receive, limit=_MAX_BODY_BYTES, seconds=_BODY_SECONDS)
        try:
            asked = EvictRequest.model_validate_json(body)
        except ValidationError:
            raise InvalidRequestError(
                'the body is no evict request; expected {"worker_id": "…", "boot_id": "…", "unused_for": 300, '
                '"force": false, "reason": "IdleEviction"}'
            ) from None
        return pong(200 if machine.evict(asked) else 409)

    routes = [
        Route("/v1/lifecycle", lifecycle, methods=["GET"]),
        Route("/v1/lifecycle/evict", evict, methods=["POST"]),
    ]
    return Guard(TokenGate(Starlette(routes=routes, exception_handlers=HANDLERS), token, "lifecycle"))


def _query(request: Request) -> tuple[tuple[str, int] | None, float, float | None]:
    query = request.query_params
    after = None
    if said := query.get("after"):
        boot, _, seq = said.rpartition(":")
        if not boot or len(said) > 128 or not (seq.isascii() and seq.isdigit()):
            raise InvalidRequestError("after is not a boot and a move; expected for example after=BOOT:3")
        after = (boot, int(seq))
    wait = _seconds(query.get("wait"), "wait", MAX_WAIT_SECONDS)
    return after, wait or 0.0, _seconds(query.get("idle_after"), "idle_after", _MAX_IDLE_SECONDS)


def _seconds(text: str | None, name: str, most: float) -> float | None:
    if text is None:
        return None
    try:
        seconds = float(text[:32])
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= most:
        raise InvalidRequestError(f"{name} is out of range; expected seconds from 0 to {most:g}")
    return seconds
