"""What chat and completions have in common: texts from the model, as one answer or as a stream."""

import asyncio
import time
import uuid
from collections.abc import Sequence
from functools import partial

from starlette.types import Receive, Scope, Send

from modelpool_worker.errors import RequestError
from modelpool_worker.generation.request import TextDelta, TextRequest
from modelpool_worker.openai.generated import Answer, GeneratedText, Identity
from modelpool_worker.openai.stream import KEEP_ALIVE, error_event
from modelpool_worker.scheduling.job import Job
from modelpool_worker.web.endpoint import Endpoint, outcome_of
from modelpool_worker.web.event_stream import EventStream
from modelpool_worker.web.parts import json_response, unless_left


class Generation(Endpoint):
    """A subclass reads the request and makes the answer's bytes; this runs it."""

    async def whole(
        self, job: Job, texts: Sequence[TextRequest], answer: Answer, scope: Scope, receive: Receive, send: Send
    ) -> str:
        """Answer once every text is complete; return how it ended."""
        gathered, prompt_tokens, new_tokens = await unless_left(receive, self._gather(job, texts))
        encode = partial(answer.whole, gathered, prompt_tokens, new_tokens)
        many = any(each.logprobs for each in gathered)
        content = await asyncio.to_thread(encode) if many else encode()
        await self.answer(json_response(content), scope, receive, send)
        return "ok"

    async def streamed(
        self, job: Job, texts: Sequence[TextRequest], answer: Answer, receive: Receive, send: Send
    ) -> str:
        """Answer with what there is as it comes; return how it ended.

        Raises ``RequestError`` only as long as nothing was sent; from then on an event tells it, and the connection is
        cut: a stream never ends well that did not.
        """
        stream = EventStream(send, self.in_time)
        try:
            last = await unless_left(receive, self._tell(job, texts, answer, stream))
            await stream.end(last)
        except RequestError as error:
            if not stream.started:
                raise
            await stream.write(error_event(error))
            return outcome_of(error)
        return "ok"

    def identity(self, prefix: str) -> Identity:
        """Return what a new answer is called."""
        created = int(time.clock_gettime(time.CLOCK_REALTIME))
        return Identity(f"{prefix}-{uuid.uuid4().hex}", created, self.settings.model_name)

    async def _gather(self, job: Job, texts: Sequence[TextRequest]) -> tuple[list[GeneratedText], int, int]:
        """Return the texts, and the tokens of the prompts and of the texts."""
        start = time.monotonic()
        gathered = [GeneratedText() for _text in texts]
        prompt_tokens = await self._submit(job, texts)
        new_tokens = 0
        pieces = await job.next_pieces()
        self.metrics.first_token.observe(time.monotonic() - start)
        await job.answer  # the rest at once: nobody waits for less
        while pieces:
            for index, delta in pieces:
                gathered[index].add(delta)
            new_tokens += self._count(pieces)
            pieces = await job.next_pieces()
        return gathered, prompt_tokens, new_tokens

    async def _tell(self, job: Job, texts: Sequence[TextRequest], answer: Answer, stream: EventStream) -> bytes:
        """Send events until every text is complete; return the last ones, unsent."""
        start = time.monotonic()
        prompt_tokens = await self._submit(job, texts)
        pieces = await self._next(job, stream)
        self.metrics.first_token.observe(time.monotonic() - start)
        new_tokens = 0
        events = answer.opening()
        while pieces:
            new_tokens += self._count(pieces)
            # what waits goes out in one write
            events += b"".join([answer.events(index, delta) for index, delta in pieces])
            if events and not job.over:
                await stream.write(events)
                events = b""
            pieces = await self._next(job, stream)
        return events + answer.closing(prompt_tokens, new_tokens)

    async def _next(self, job: Job, stream: EventStream) -> list[tuple[int, TextDelta]]:
        """Return what was added; meanwhile show that the connection lives."""
        while True:
            try:
                async with asyncio.timeout(self.settings.heartbeat_seconds):
                    return await job.next_pieces()
            except TimeoutError:
                await stream.write(KEEP_ALIVE)

    async def _submit(self, job: Job, texts: Sequence[TextRequest]) -> int:
        tokens = await self.runner.submit(job, texts)
        self.metrics.tokens.inc(tokens)
        return tokens

    def _count(self, pieces: Sequence[tuple[int, TextDelta]]) -> int:
        tokens = sum(delta.tokens for _index, delta in pieces)
        self.metrics.output_tokens.inc(tokens)
        return tokens
