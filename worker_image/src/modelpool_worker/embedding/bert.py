"""The forward of a plain BERT encoder on a CPU, equal to that of transformers without importing it.

Texts are calculated packed: everything that looks at one token at a time sees the tokens of all texts as the rows of
one matrix, and only attention goes text by text. Nothing is spent on padding. Threads that call this at once calculate
each its own texts; they do not share out each other's matrices, which would have them wait for each other at every step.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from modelpool_worker.embedding.bert_sizes import BertSizes
from modelpool_worker.embedding.packing import divide, pack
from modelpool_worker.embedding.pooling import in_order, pool
from modelpool_worker.models.devices import calculate_alone, calculate_with
from modelpool_worker.models.linear import Layer, linear, padded_rows

_Norm = Callable[[Tensor], Tensor]

#: Tokens calculated together by one thread: enough rows for its matrix kernels, and few enough for its cache.
_PART_TOKENS: Final = 512
#: Tokens from which on one text alone is faster with several threads.
_LARGE: Final = 64
_PARTS: Final = ("weight", "bias")


class _Block(NamedTuple):
    """One layer: attention and what follows it."""

    attend: Layer
    attended: Layer
    attended_norm: _Norm
    widen: Layer
    narrow: Layer
    norm: _Norm


class BertEncoder:
    """Token ids → pooled vectors. The table of words stays in the mapped file, as it is saved."""

    def __init__(
        self, weights: Path, sizes: BertSizes, dtype: torch.dtype, threads: int, *, rearrange: bool = True
    ) -> None:
        self.dtype = dtype
        self._lock = threading.Lock()
        self._callers = 0
        #: A thread that calculates with all the others, for who is alone with a long text.
        self._together = ThreadPoolExecutor(1, "together", initializer=calculate_with, initargs=(threads,))
        self._heads = sizes.heads
        self._head_size = sizes.hidden // sizes.heads
        with safe_open(str(weights), framework="pt") as file:

            def read(name: str) -> Tensor:
                tensor: Tensor = file.get_tensor(sizes.prefix + name)
                return tensor

            def norm(name: str, dtype: torch.dtype) -> _Norm:
                weight, bias = read(f"{name}.weight").to(dtype), read(f"{name}.bias").to(dtype)
                return lambda rows: functional.layer_norm(rows, weight.shape, weight, bias, sizes.epsilon)

            def join(tensors: Sequence[Tensor]) -> Tensor:
                return torch.cat(list(tensors)) if len(tensors) > 1 else tensors[0]

            def layer(*names: str, gelu: bool = False) -> Layer:
                weight, bias = (join([read(f"{name}.{part}").to(dtype) for name in names]) for part in _PARTS)
                return linear(weight, bias, gelu=gelu, rearrange=rearrange)

            self._words = read("embeddings.word_embeddings.weight")
            types = read("embeddings.token_type_embeddings.weight")
            self._positions = read("embeddings.position_embeddings.weight").float() + types[0].float()
            self._norm = norm("embeddings.LayerNorm", torch.float32)
            self._blocks = [
                _Block(
                    layer(*(f"{place}.attention.self.{part}" for part in ("query", "key", "value"))),
                    layer(f"{place}.attention.output.dense"),
                    norm(f"{place}.attention.output.LayerNorm", dtype),
                    layer(f"{place}.intermediate.dense", gelu=True),
                    layer(f"{place}.output.dense"),
                    norm(f"{place}.output.LayerNorm", dtype),
                )
                for place in (f"encoder.layer.{number}" for number in range(sizes.layers))
            ]

    def embed(self, texts: Sequence[Sequence[int]], modes: Sequence[str]) -> Tensor:
        """Return one float32 vector per text [texts, size × modes], in order; each text has one token at least.

        Calculated by the thread that calls, but for a long text that nobody else is beside.
        """
        with self._called() as alone:
            if alone and len(texts) == 1 and len(texts[0]) >= _LARGE:
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
            hidden = self._norm(words.add_(positions)).to(self.dtype)
            for block in self._blocks:
                attended = block.attended(self._attend(block.attend(hidden), packed.lengths))
                hidden = block.attended_norm(attended.add_(hidden))
                hidden = block.norm(block.narrow(block.widen(hidden)).add_(hidden))
            return _pooled(hidden, packed.lengths, modes)[: len(texts)]

    def _attend(self, rows: Tensor, lengths: Sequence[int]) -> Tensor:
        """Attention of every token to those of its own text: [rows, 3 × size] → [rows, size].

        In float32 whatever the format: for short texts it is faster, and the sums are exact.
        """
        attended, rows_left = [], rows.float()
        for length, equal in groupby(lengths):  # texts of equal length, which are neighbours, in one call
            number = len(list(equal))
            here, rows_left = rows_left.tensor_split((number * length,))
            heads = here.view(number, length, 3, self._heads, self._head_size).permute(2, 0, 3, 1, 4)
            attended.append(functional.scaled_dot_product_attention(*heads.unbind()).transpose(1, 2).flatten(0, 1))
        return torch.cat(attended).flatten(1).to(rows.dtype)


def _pooled(hidden: Tensor, lengths: Sequence[int], modes: Sequence[str]) -> Tensor:
    padded = pad_sequence(list(torch.split(hidden, list(lengths))), batch_first=True)
    mask = torch.arange(padded.shape[1]) < torch.tensor(lengths).unsqueeze(1)
    return pool(padded, mask.to(torch.int64), modes)
