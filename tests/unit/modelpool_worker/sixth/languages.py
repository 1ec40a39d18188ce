"""A capability that the worker does not have: texts → the language each is written in, by its letters.

All that a new capability needs is in this file, as it would be under ``capabilities/``: a model, and its endpoint.
"""

import json
import threading
from functools import partial

import numpy as np
from safetensors.numpy import load_file

from modelpool_worker.capabilities.base import Loaded, Prepared
from modelpool_worker.errors import InvalidRequestError, NeverLoadsError
from modelpool_worker.openai.body import check_model, read_object
from modelpool_worker.web.endpoint import Endpoint
from modelpool_worker.web.parts import json_response, unless_left

MAX_TEXTS = 100

#: For tests: a batch runs while this is set; what ran, and whether the model was unloaded.
GATE, RAN, UNLOADED = threading.Event(), [], threading.Event()


class Languages:
    """A linear classifier over counts of letters: model.safetensors has ``weight`` [languages, 26]."""

    name = "language-guess"

    def load(self, request):
        names = json.loads((request.folder / "config.json").read_text())["languages"]
        self._weight = load_file(request.folder / "model.safetensors")["weight"]
        if self._weight.shape != (len(names), 26):
            raise NeverLoadsError(f"{request.source} has weights of another shape than its languages; copy it again")
        self._names = names
        return Loaded(device="cpu", dtype="float32", max_items=4)

    def warm_up(self):
        self._classify(self.prepare(["warm up"])[0].value[None])

    def prepare(self, inputs):
        if any(not text.strip() for text in inputs):
            raise InvalidRequestError('a text is empty; expected for example "bonjour"', param="input")
        counts = [np.bincount([ord(c) - 97 for c in text.lower() if "a" <= c <= "z"], minlength=26) for text in inputs]
        return [
            Prepared(each.astype(np.float32), len(text), len(text)) for each, text in zip(counts, inputs, strict=True)
        ]

    def run_batch(self, values, wanted):
        assert GATE.wait(30)
        RAN.append(len(values))
        return [self._names[each] for each in self._classify(np.stack(values))]

    def unload(self):
        UNLOADED.set()

    def accelerator_mib(self):
        return 0

    def _classify(self, counts):
        return (counts @ self._weight.T).argmax(axis=1)


class Guesses(Endpoint):
    """``{"model": …, "input": [texts]}`` → ``{"languages": [names]}``."""

    async def serve(self, scope, receive, send):
        texts = await self.parsed(await self.body(scope, receive), partial(_texts, name=self.settings.model_name))
        with self.runner.admitted(len(texts)) as job, self.metrics.latency.time():
            languages, tokens = await unless_left(receive, self.runner.compute(job, texts))
            self.metrics.tokens.inc(tokens)
            await self.answer(json_response({"languages": languages}), scope, receive, send)
        return "ok"


def _texts(body, name):
    request = read_object(body)
    check_model(request, name)
    texts = request.get("input")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts) or not texts:
        raise InvalidRequestError('input is no list of texts; expected "input": ["bonjour"]', param="input")
    if len(texts) > MAX_TEXTS:
        raise InvalidRequestError(f"input has {len(texts)} texts; expected at most {MAX_TEXTS}", param="input")
    return texts
