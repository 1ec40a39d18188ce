"""What chat and completions have in common: texts from the model, as one answer or as a stream."""

import asyncio
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Final

from starlette.types import Receive, Scope, Send

from modelpool_worker.errors import RequestError
from modelpool_worker.generation.request import TextDelta, TextRequest
from modelpool_worker.openai.generated import Answer, GeneratedText, Identity
from modelpool_worker.openai.stream import KEEP_ALIVE, error_event
from modelpool_worker.scheduling.job import Job
from modelpool_worker.web.endpoint import Endpoint, Serving, outcome_of
from modelpool_worker.web.event_stream import EventStream
from modelpool_worker.web.parts import json_response, unless_left

#: A piece and each of its entries of logprobs takes about 170 bytes until it is sent. So many of them may wait for a
#: client that reads more slowly than the model writes: 11 MB.
_MOST_BEHIND: Final = 65_536
#: As many are turned into events in one turn of the event loop, and so many bytes of whole answers: 1 ms. More of it
#: than in a turn's time takes turns; in a thread it would take the interpreter's lock away for 5 ms each time.
_ONE_TURN: Final = 1024
_ONE_TURN_BYTES: Final = 32_768
#: Pieces of an answer that is not streamed are put together so many at a time.
_GATHERED: Final = 256


class Generation(Endpoint):
    """A subclass reads the request and makes the answer's bytes; this runs it."""

    def __init__(self, serving: Serving) -> None:
        super().__init__(serving)
        self._turns = asyncio.Lock()

    async def whole(
        self, job: Job, texts: Sequence[TextRequest], answer: Answer, scope: Scope, receive: Receive, send: Send
    ) -> str:
        """Answer once every text is complete; return how it ended."""
        gathered, prompt_tokens, new_tokens = await unless_left(receive, self._gather(job, texts))
        content = await self._encoded(answer.whole(gathered, prompt_tokens, new_tokens))
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
        while pieces:
            for index, delta in pieces:
                gathered[index].add(delta)
            new_tokens += self._count(pieces)
            pieces = await job.next_pieces(least=_GATHERED)  # nobody waits for less
        return gathered, prompt_tokens, new_tokens

    async def _tell(self, job: Job, texts: Sequence[TextRequest], answer: Answer, stream: EventStream) -> bytes:
        """Send events until every text is complete; return the last ones, unsent."""
        start = time.monotonic()
        top = texts[0].sampling.top_logprobs
        weight = 1 if top is None else 2 + top
        job.most_pieces, turn = _MOST_BEHIND // weight, _ONE_TURN // weight
        prompt_tokens = await self._submit(job, texts)
        pieces = await self._next(job, stream, turn)
        self.metrics.first_token.observe(time.monotonic() - start)
        new_tokens = 0
        events = answer.opening()
        while pieces:
            new_tokens += self._count(pieces)
            # what waits goes out in one write, up to a turn's worth of it
            if behind := len(pieces) == turn:
                await self._turn()
            events += b"".join([answer.events(index, delta) for index, delta in pieces])
            if events and (behind or not job.over):
                await stream.write(events)
                events = b""
            pieces = await self._next(job, stream, turn)
        return events + answer.closing(prompt_tokens, new_tokens)

    async def _encoded(self, parts: Iterator[bytes]) -> bytes:
        """Return the parts joined; where they are many everything else has its turns meanwhile."""
        made, size = [], 0
        for part in parts:
            made.append(part)
            size += len(part)
            if size >= _ONE_TURN_BYTES:
                size = 0
                await self._turn()
        # joining large ones takes time but not the interpreter's lock
        return await asyncio.to_thread(b"".join, made) if len(made) > _GATHERED else b"".join(made)

    async def _turn(self) -> None:
        """Let everything else have its turn; of all answers that wait here one goes on in each turn."""
        async with self._turns:
            await asyncio.sleep(0)

    async def _next(self, job: Job, stream: EventStream, most: int) -> list[tuple[int, TextDelta]]:
        """Return what was added; meanwhile show that the connection lives."""
        while True:
            try:
                async with asyncio.timeout(self.settings.heartbeat_seconds):
                    return await job.next_pieces(most=most)
            except TimeoutError:
                await stream.write(KEEP_ALIVE)

    async def _submit(self, job: Job, texts: Sequence[TextRequest]) -> int:
        # together: what is said before this returns nobody takes, and one wrong text refuses the request by its status
        tokens = await self.runner.submit(job, texts, together=True)
        self.metrics.tokens.inc(tokens)
        return tokens

    def _count(self, pieces: Sequence[tuple[int, TextDelta]]) -> int:
        tokens = sum(delta.tokens for _index, delta in pieces)
        self.metrics.output_tokens.inc(tokens)
        return tokens
