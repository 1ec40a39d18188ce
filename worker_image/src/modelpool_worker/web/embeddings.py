"""``POST /v1/embeddings``."""

import asyncio
from functools import partial
from typing import Final

from starlette.types import Receive, Scope, Send

from modelpool_worker.openai.embeddings import encode_answer, parse_request
from modelpool_worker.web.endpoint import Endpoint
from modelpool_worker.web.parts import json_response, unless_left

#: Answers with more numbers than this are encoded beside the event loop.
_BIG_ANSWER: Final = 16_384


class Embeddings(Endpoint):
    """Texts or lists of token ids → vectors."""

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> str:
        """Serve one request; the vectors of all its inputs come at once."""
        name = self.settings.model_name
        body = await self.body(scope, receive)
        parse = partial(parse_request, model_name=name, vector_size=self.runner.loaded.vector_size)
        request = await self.parsed(body, parse)
        del body
        with self.runner.admitted(len(request.inputs)) as job, self.metrics.latency.time():
            vectors, tokens = await unless_left(receive, self.runner.compute(job, request.inputs))
            encode = partial(encode_answer, request, vectors, model_name=name, tokens=tokens)
            big = sum(len(vector) for vector in vectors) > _BIG_ANSWER
            content = await asyncio.to_thread(encode) if big else encode()
            self.metrics.tokens.inc(tokens)
            await self.answer(json_response(content), scope, receive, send)
        return "ok"
