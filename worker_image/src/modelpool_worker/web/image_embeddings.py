"""``POST /v1/embeddings`` of a model that takes images."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from modelpool_worker.imaging.encoded import EncodedImage, encoded_image
from modelpool_worker.imaging.fetch import ImageFetcher
from modelpool_worker.imaging.pixel_budget import Share
from modelpool_worker.imaging.sources import ImageUrl
from modelpool_worker.openai.embeddings import encode_answer
from modelpool_worker.openai.image_embeddings import Expected, Input, parse_request
from modelpool_worker.scheduling.job import Job
from modelpool_worker.web.body_budget import Held
from modelpool_worker.web.endpoint import Endpoint, Serving
from modelpool_worker.web.image_urls import image_fetcher
from modelpool_worker.web.parts import json_response, unless_left


class ImageEmbeddings(Endpoint):
    """Images, in the request or at URLs, and texts → vectors in one space."""

    def __init__(self, serving: Serving, fetcher: ImageFetcher | None = None) -> None:
        """``fetcher`` of None: as the settings describe it."""
        super().__init__(serving)
        self._fetcher = fetcher or image_fetcher(self.settings)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> str:
        """Serve one request; the vectors of all its inputs come at once."""
        name = self.settings.model_name
        body = await self.body(scope, receive)
        content_type = Headers(scope=scope).get("content-type", "")
        query = scope.get("query_string", b"").decode("latin-1")
        expected = Expected(name, self.runner.loaded.vector_size, self.settings.max_image_pixels)
        parse = partial(parse_request, content_type=content_type, query=query, expected=expected)
        request = await self.parsed(body, parse)
        del body
        with self.runner.admitted(len(request.inputs)) as job, self.metrics.latency.time():
            vectors, tokens = await unless_left(receive, self._run(job, request.inputs, self.held(scope)))
            content = await asyncio.to_thread(encode_answer, request, vectors, model_name=name, tokens=tokens)
            self.metrics.tokens.inc(tokens)
            await self.answer(json_response(content), scope, receive, send)
        return "ok"

    async def _run(self, job: Job, inputs: Sequence[Input], held: Held) -> tuple[list[Any], int]:
        # admitted before they are fetched: whoever waits for them is pending, and was not refused in vain
        fetched = await self._fetched([each for each in inputs if isinstance(each, ImageUrl)], held)
        given = [fetched[each] if isinstance(each, ImageUrl) else each for each in inputs]
        # an image that is there twice is decoded twice, and takes its part of the memory twice
        share = Share("input")
        return await self.runner.compute(
            job, [replace(each, share=share) if isinstance(each, EncodedImage) else each for each in given]
        )

    async def _fetched(self, urls: Sequence[ImageUrl], held: Held) -> dict[ImageUrl, EncodedImage]:
        found = await self._fetcher.fetch_all(urls, param="input", take=held.take)
        check = partial(encoded_image, max_pixels=self.settings.max_image_pixels, param="input")
        return {url: await asyncio.to_thread(check, data) for url, data in found.items()}
