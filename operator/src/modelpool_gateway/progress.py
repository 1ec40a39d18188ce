"""What a streaming client is told while its request is held: comments, which every reader of events passes over."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import orjson

from modelpool_gateway.ticket import Ticket

_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # nginx would hold events back until it has a bufferful
    (b"x-accel-buffering", b"no"),
]


@asynccontextmanager
async def telling(ticket: Ticket, state: Callable[[], str], seconds: float) -> AsyncIterator[None]:
    """Tell the client every ``seconds`` what it waits for, for as long as the context lasts, if it wants to know."""
    if not ticket.progress:
        yield
        return
    task = asyncio.create_task(_tell(ticket, state, seconds))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _tell(ticket: Ticket, state: Callable[[], str], seconds: float) -> None:
    if not ticket.headed:
        ticket.headed, ticket.status = True, 200
        await ticket.send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    while True:
        comment = f": waiting — {state()}\n\n".encode()
        await ticket.send({"type": "http.response.body", "body": comment, "more_body": True})
        await asyncio.sleep(seconds)


def error_event(content: Mapping[str, Any]) -> bytes:
    """Return the event that ends a stream which has begun; ``content`` is an error object in OpenAI's shape."""
    return b"data: " + orjson.dumps({"error": content}) + b"\n\n"
