"""``POST /v1/images/generations``."""

import asyncio
import secrets
import time
from functools import partial
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from modelpool_worker.errors import InvalidRequestError
from modelpool_worker.imaging.encoding import encode
from modelpool_worker.openai.images import ImagesRequest, encode_answer, parse_request
from modelpool_worker.web.endpoint import Endpoint
from modelpool_worker.web.parts import json_response, unless_left

#: Two prompts of 4,000 characters, each written as two JSON escapes, fit in.
_MAX_BODY_BYTES: Final = 256 * 1024
#: A client that reads seeds as floating-point numbers keeps all of their digits.
_SEEDS: Final = 2**32


class Images(Endpoint):
    """A prompt → images, as JSON; or one image itself where ``Accept`` names its media type."""

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> str:
        """Serve one request; its images may run in several batches, and come at once."""
        name = self.settings.model_name
        body = await self.body(scope, receive, min(_MAX_BODY_BYTES, self.settings.max_body_bytes))
        request = await self.parsed(body, partial(parse_request, model_name=name, any_seed=secrets.randbelow(_SEEDS)))
        del body
        plain = _accepts(scope, request.media_type)
        if plain and len(request.images) > 1:
            raise InvalidRequestError(
                f"an answer of Accept: {request.media_type} holds one image; expected n of 1, or no such header",
                param="n",
            )
        with self.runner.admitted(len(request.images)) as job, self.metrics.latency.time():
            drawn, tokens = await unless_left(receive, self.runner.compute(job, request.images))
            response = await asyncio.to_thread(_respond, request, drawn, plain=plain)
            self.metrics.tokens.inc(tokens)
            await self.answer(response, scope, receive, send)
        return "ok"


def _respond(request: ImagesRequest, drawn: list[Any], *, plain: bool) -> Response:
    pictures = [encode(pixels, request.format, request.quality) for pixels in drawn]
    if plain:
        return Response(pictures[0], media_type=request.media_type)
    height, width, _colours = drawn[0].shape
    created = int(time.clock_gettime(time.CLOCK_REALTIME))
    return json_response(encode_answer(request, pictures, size=(width, height), created=created))


def _accepts(scope: Scope, media_type: str) -> bool:
    """Return whether the client names this very media type; wildcards get JSON, as OpenAI's clients expect."""
    asked = Headers(scope=scope).get("accept", "")
    return any(part.partition(";")[0].strip().lower() == media_type for part in asked.split(","))
