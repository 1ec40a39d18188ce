"""Text embedding, equal to what sentence-transformers computes.

Importing this module imports torch, which takes a second or two: only the load thread does it. transformers is
imported for models that need it. Texts longer than the model's ``max_seq_length`` are cut there, as
sentence-transformers does.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from modelpool_worker.capabilities.base import Loaded, LoadRequest, Prepared
from modelpool_worker.embedding.encoders import TextEncoder, load_encoder
from modelpool_worker.embedding.sentence_folder import Recipe, read_recipe
from modelpool_worker.errors import InvalidRequestError, NeverLoadsError
from modelpool_worker.models import model_files
from modelpool_worker.models.devices import calculate_with, choose_device, name_of, reserved_mib

Vector = NDArray[np.float32]


class TextEmbedding:
    """Texts or token ids → vectors (float32, as long as the model's hidden size)."""

    name: ClassVar[str] = "text-embedding"

    def __init__(self) -> None:
        self._encoder: TextEncoder | None = None
        self._recipe = Recipe()
        self._device = torch.device("cpu")

    def load(self, request: LoadRequest) -> Loaded:
        """Load from a local folder, safetensors only, no code of the model's author."""
        self._device = choose_device(request.gpus)
        calculate_with(request.threads)
        self._recipe = read_recipe(request.folder, request.source)
        files = model_files.check(request.folder / self._recipe.subfolder, request.source)
        encoder = load_encoder(files, self._recipe, request.dtype, self._device, request.threads)
        self._encoder = encoder
        vector_size = len(self.run_batch([self.prepare(["size"])[0].value], lambda: True)[0])
        dtype = name_of(encoder.dtype)
        return Loaded(str(self._device), dtype, vector_size, max_items=encoder.max_items, lanes=encoder.lanes)

    def warm_up(self) -> None:
        """Embed a short and a longer text together."""
        values = [each.value for each in self.prepare(["warm up", "a somewhat longer text to warm up with"])]
        for vector in self.run_batch(values, lambda: True):
            if not np.isfinite(vector).all():
                raise NeverLoadsError("the model's vectors are not finite numbers; try dtype float32")

    def prepare(self, inputs: Sequence[str | list[int]]) -> list[Prepared]:
        """Turn texts into token ids. Token ids are taken as they are: the special tokens are the caller's.

        Raises ``InvalidRequestError`` for token ids that the model does not take, and for what has no token at all.
        """
        encoder = self._loaded()
        texts = [self._recipe.prompt + text for text in inputs if isinstance(text, str)]
        # without offsets it takes a third of the time, and holds the interpreter less
        encoded = iter(encoder.tokenizer.encode_batch_fast(texts) if texts else ())
        prepared = [next(encoded).ids if isinstance(item, str) else _checked(item, encoder) for item in inputs]
        if not all(prepared):
            raise InvalidRequestError('an input has no tokens; expected text such as "hello"', param="input")
        return [Prepared(ids, cost=len(ids), tokens=len(ids)) for ids in prepared]

    def run_batch(self, values: Sequence[list[int]], wanted: Callable[[], bool]) -> list[Vector]:
        """Embed lists of token ids; but for rounding the result does not depend on what else is in the batch."""
        vectors = self._loaded().model.embed(values, self._recipe.pooling)
        if self._recipe.normalize:
            vectors = torch.nn.functional.normalize(vectors, p=2, dim=1)
        rows: Vector = vectors.cpu().numpy()
        return list(rows)

    def unload(self) -> None:
        """Drop model and tokenizer."""
        if self._encoder is not None:
            self._encoder.model.close()
        self._encoder = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def accelerator_mib(self) -> int:
        """Return what torch has reserved on the accelerator, MiB."""
        return reserved_mib(self._device)

    def _loaded(self) -> TextEncoder:
        if self._encoder is None:
            raise RuntimeError("no model is loaded; expected load() before")
        return self._encoder


def _checked(ids: list[int], encoder: TextEncoder) -> list[int]:
    if len(ids) > encoder.max_tokens:
        raise InvalidRequestError(
            f"an input has {len(ids)} tokens, this model takes at most {encoder.max_tokens}", param="input"
        )
    if ids and max(ids) >= encoder.vocabulary:
        raise InvalidRequestError(
            f"a token id is not in this model's vocabulary; expected 0 to {encoder.vocabulary - 1}", param="input"
        )
    return ids
