"""``POST /v1/chat/completions``."""

from functools import partial
from typing import Final

from starlette.types import Receive, Scope, Send

from modelpool_api import Capability
from modelpool_worker.openai.chat import ChatAnswer, parse_chat
from modelpool_worker.web.generation import Generation

_WITH_IMAGES: Final = (Capability.VISION,)


class Chat(Generation):
    """Messages, with images where the model takes them → the next message."""

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> str:
        """Serve one request."""
        body = await self.body(scope, receive)
        images = self.settings.capability in _WITH_IMAGES
        request = await self.parsed(body, partial(parse_chat, model_name=self.settings.model_name, images=images))
        del body
        logprobs = request.sampling.top_logprobs is not None
        answer = ChatAnswer(self.identity("chatcmpl"), request.form, logprobs=logprobs)
        with self.runner.admitted(request.size) as job, self.metrics.latency.time():
            texts = request.texts({})
            if request.form.stream:
                return await self.streamed(job, texts, answer, receive, send)
            return await self.whole(job, texts, answer, scope, receive, send)
