"""A worker that speaks, on a real port, and what its model does in the test's hand."""

import asyncio
import threading
from contextlib import asynccontextmanager

import pytest

from modelpool_worker.capabilities.base import Loaded, Piece, Prepared
from modelpool_worker.errors import InferenceFailedError, InvalidRequestError
from modelpool_worker.generation.request import TextDelta, TokenLogprob
from modelpool_worker.web.server import create_server, listen
from unit.cut_off import cut_off


class Speaker:
    """Says back the last text of a request, a character a turn; each turn waits for the gate, or for one ``step``.

    Some texts do something else: "bad input" is refused when it is prepared, "bad row" when it joins, "breaks" after
    two characters, "poison" fails the turn, and "endless" says 64 KiB a turn until it is dropped.
    """

    name = "text-to-text"

    def __init__(self):
        self.gate = threading.Event()
        self.loading = threading.Event()
        self.gate.set()
        self.loading.set()
        self.rows = {}
        self.joined = threading.Event()
        self.empty = threading.Event()
        self._steps = threading.Semaphore(0)

    def load(self, request):
        assert self.loading.wait(30)
        return Loaded(device="cpu", dtype="float32", context_tokens=100)

    def warm_up(self):
        pass

    def prepare(self, inputs):
        prepared = []
        for request in inputs:
            said = request.messages[-1].parts[-1] if request.messages else request.prompt
            text = said if isinstance(said, str) else "".join(map(chr, said))
            if text == "bad input":
                raise InvalidRequestError("expected something else", param="messages")
            prepared.append(Prepared((text, request), len(text), 0 if request.choice else len(text)))
        return prepared

    def step(self, turns):
        """Allow so many turns although the gate is closed."""
        for _ in range(turns):
            self._steps.release()

    def turn(self, joins, leaves):
        for key in leaves:
            del self.rows[key]
        self.rows |= {key: [*value, 0] for key, value in joins.items()}
        if not self.rows:
            self.empty.set()
        if joins:
            self.joined.set()
        while self.rows and not self.gate.wait(0.001):
            if self._steps.acquire(blocking=False):
                break
        pieces = [self._said(key, row) for key, row in self.rows.items()]
        for piece in pieces:
            if piece.last:
                del self.rows[piece.key]
        return pieces

    def _said(self, key, row):
        text, request, place = row
        row[2] += 1
        if text == "poison":
            raise RuntimeError("swordfish")
        if text == "bad row":
            return Piece(key, None, last=True, error=InvalidRequestError("expected another row", param="prompt"))
        if text == "breaks" and place == 2:
            return Piece(key, None, last=True, error=InferenceFailedError("the row broke"))
        if text == "endless":
            return Piece(key, TextDelta("x" * 65_536, 1))
        limit = request.sampling.max_tokens or len(text)
        finish = "stop" if place + 1 == len(text) else "length" if place + 1 == limit else None
        character = text[place]
        logprobs = ()
        if request.sampling.top_logprobs is not None:
            top = tuple(TokenLogprob(other, -2.0, other.encode()) for other in "abc"[: request.sampling.top_logprobs])
            logprobs = (TokenLogprob(character, -0.5, character.encode(), top),)
        return Piece(key, TextDelta(character, 1, logprobs, finish), last=finish is not None)

    def reset(self):
        self.rows.clear()

    def unload(self):
        pass

    def accelerator_mib(self):
        return 0


@pytest.fixture
def speaking(make_worker):
    """A function that starts a worker with a `Speaker`, or another model; an async context of (worker, its URL)."""

    @asynccontextmanager
    async def start(model=None, **changes):
        worker = make_worker(model or Speaker(), **({"capability": "text-to-text"} | changes))
        life = asyncio.create_task(worker.runner.live())
        await worker.reach("Ready")
        server, port = create_server(worker.inference), listen("127.0.0.1", 0)
        serving = asyncio.create_task(server.serve(sockets=[port]))
        try:
            yield worker, f"http://127.0.0.1:{port.getsockname()[1]}"
        finally:
            if model is None:
                worker.capability.gate.set()
            await cut_off(server, serving)
            port.close()
            life.cancel()
            await asyncio.gather(life, return_exceptions=True)

    return start
