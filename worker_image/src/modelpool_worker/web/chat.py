"""``POST /v1/chat/completions``."""

from functools import partial
from typing import ClassVar

from starlette.types import Receive, Scope, Send

from modelpool_worker.imaging.fetch import ImageFetcher
from modelpool_worker.imaging.sources import ImageUrl
from modelpool_worker.openai.chat import ChatAnswer, parse_chat
from modelpool_worker.web.endpoint import Serving
from modelpool_worker.web.generation import Generation
from modelpool_worker.web.image_urls import image_fetcher
from modelpool_worker.web.parts import unless_left


class Chat(Generation):
    """Messages of text → the next message."""

    takes_images: ClassVar[bool] = False

    def __init__(self, serving: Serving, fetcher: ImageFetcher | None = None) -> None:
        """``fetcher`` of None: as the settings describe it."""
        super().__init__(serving)
        self._fetcher = fetcher or image_fetcher(self.settings) if self.takes_images else None

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> str:
        """Serve one request."""
        body = await self.body(scope, receive)
        parse = partial(parse_chat, model_name=self.settings.model_name, images=self.takes_images)
        request = await self.parsed(body, parse)
        del body
        logprobs = request.sampling.top_logprobs is not None
        answer = ChatAnswer(self.identity("chatcmpl"), request.form, logprobs=logprobs)
        with self.runner.admitted(request.size) as job, self.metrics.latency.time():
            images: dict[ImageUrl, bytes] = {}
            if self._fetcher is not None and request.urls:
                # admitted before they are fetched: whoever waits for them is pending, and was not refused in vain
                fetching = self._fetcher.fetch_all(request.urls, param="messages", take=self.held(scope).take)
                images = await unless_left(receive, fetching)
            texts = request.texts(images)
            if request.form.stream:
                return await self.streamed(job, texts, answer, receive, send)
            return await self.whole(job, texts, answer, scope, receive, send)


class ImageChat(Chat):
    """Messages with images, in the request or at URLs → the next message."""

    takes_images = True
