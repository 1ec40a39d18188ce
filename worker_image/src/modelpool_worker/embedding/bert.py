"""The forward of a plain BERT encoder on a CPU, equal to that of transformers without importing it.

Texts are calculated packed: everything that looks at one token at a time sees the tokens of all texts as the rows of
one matrix, and only attention goes text by text. Nothing is spent on padding. Threads that call this at once calculate
their own texts each; they do not share out each other's matrices, which would have them wait for each other at every
step.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from modelpool_worker.embedding.bert_blocks import PARTS, compiled
from modelpool_worker.embedding.bert_sizes import BertSizes
from modelpool_worker.embedding.packing import divide, pack
from modelpool_worker.embedding.pooling import in_order, pool
from modelpool_worker.models.devices import calculate_alone, calculate_with
from modelpool_worker.models.linear import padded_rows, rearranged_weight, rearranges

#: Tokens calculated together by one thread: enough rows for its matrix kernels, and few enough for its cache.
_PART_TOKENS: Final = 512
#: Tokens from which on one text alone is faster with several threads: in float32 any text; in half as many bits a
#: thread is done with a short one before the others have heard of it.
_LARGE: Final[Mapping[torch.dtype, int]] = {torch.float32: 1, torch.bfloat16: 64, torch.float16: 64}


class BertEncoder:
    """Token ids → pooled vectors. The table of words stays in the mapped file, as it is saved."""

    def __init__(
        self, weights: Path, sizes: BertSizes, dtype: torch.dtype, threads: int, *, rearrange: bool = True
    ) -> None:
        self.dtype = dtype
        self._lock = threading.Lock()
        self._callers = 0
        #: A thread that calculates with all the others, for who is alone with one text.
        self._together = ThreadPoolExecutor(1, "together", initializer=calculate_with, initargs=(threads,))
        self._heads = sizes.heads
        self._epsilon = sizes.epsilon
        self._rearranged = rearrange and rearranges(dtype)
        self._blocks = compiled()
        with safe_open(str(weights), framework="pt") as file:

            def read(name: str) -> Tensor:
                tensor: Tensor = file.get_tensor(sizes.prefix + name)
                return tensor

            def join(tensors: Sequence[Tensor]) -> Tensor:
                return torch.cat(list(tensors)) if len(tensors) > 1 else tensors[0]

            def part(place: str, names: Sequence[str]) -> Iterator[Tensor]:
                weight, bias = (
                    join([read(f"{place}.{name}.{kind}").to(dtype) for name in names]) for kind in ("weight", "bias")
                )
                yield rearranged_weight(weight) if self._rearranged and weight.dim() > 1 else weight
                yield bias

            self._words = read("embeddings.word_embeddings.weight")
            types = read("embeddings.token_type_embeddings.weight")
            self._positions = read("embeddings.position_embeddings.weight").float() + types[0].float()
            self._norm = [read(f"embeddings.LayerNorm.{kind}").float() for kind in ("weight", "bias")]
            self._weights = [
                tensor
                for number in range(sizes.layers)
                for names in PARTS
                for tensor in part(f"encoder.layer.{number}", names)
            ]

    def embed(self, texts: Sequence[Sequence[int]], modes: Sequence[str]) -> Tensor:
        """Return one float32 vector per text [texts, size × modes], in order; each text has one token at least.

        Calculated by the thread that calls, but for one text, long enough, that nobody else is beside.
        """
        with self._called() as alone:
            if alone and len(texts) == 1 and len(texts[0]) >= _LARGE[self.dtype]:
                return self._together.submit(self._embed_part, texts, modes).result()
            calculate_alone()
            parts = divide([len(ids) for ids in texts], 1, _PART_TOKENS)
            vectors = [self._embed_part([texts[index] for index in part], modes) for part in parts]
            return in_order(vectors, parts)

    def close(self) -> None:
        """End its own thread."""
        self._together.shutdown()

    @contextmanager
    def _called(self) -> Iterator[bool]:
        """Count the callers; say whether there is no other."""
        with self._lock:
            self._callers += 1
            alone = self._callers == 1
        try:
            yield alone
        finally:
            with self._lock:
                self._callers -= 1

    def _embed_part(self, texts: Sequence[Sequence[int]], modes: Sequence[str]) -> Tensor:
        packed = pack(texts, padded_rows)
        with torch.inference_mode():
            words = functional.embedding(torch.tensor(packed.ids), self._words).float()
            positions = functional.embedding(torch.tensor(packed.positions), self._positions)
            weight, bias = self._norm
            rows = functional.layer_norm(words.add_(positions), weight.shape, weight, bias, self._epsilon)
            arguments = (self._weights, packed.lengths, self._heads, self._epsilon, self._rearranged)
            hidden = self._blocks(rows.to(self.dtype), *arguments)
            return _pooled(hidden, packed.lengths, modes)[: len(texts)]


def _pooled(hidden: Tensor, lengths: Sequence[int], modes: Sequence[str]) -> Tensor:
    padded = pad_sequence(list(torch.split(hidden, list(lengths))), batch_first=True)
    mask = torch.arange(padded.shape[1]) < torch.tensor(lengths).unsqueeze(1)
    return pool(padded, mask.to(torch.int64), modes)
