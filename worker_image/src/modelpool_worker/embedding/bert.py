"""The forward of a plain BERT encoder on a CPU, equal to that of transformers without importing it.

Texts are calculated packed: everything that looks at one token at a time sees the tokens of all texts as the rows of
one matrix, and only attention goes text by text. Nothing is spent on padding. Threads calculate different texts; they
do not share out each other's matrices, which would have them wait for each other at every step.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional

from modelpool_worker.embedding.bert_sizes import BertSizes
from modelpool_worker.embedding.linear import Layer, linear, padded_rows
from modelpool_worker.embedding.packing import Packed, Run, divide, pack
from modelpool_worker.embedding.pooling import in_order, pool

_Norm = Callable[[Tensor], Tensor]


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

    def __init__(self, weights: Path, sizes: BertSizes, dtype: torch.dtype, threads: int) -> None:
        self.dtype = dtype
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "texts", initializer=torch.set_num_threads, initargs=(1,))
        self._heads = sizes.heads
        self._head_size = sizes.hidden // sizes.heads
        with safe_open(str(weights), framework="pt") as file:

            def read(name: str) -> Tensor:
                tensor: Tensor = file.get_tensor(sizes.prefix + name)
                return tensor

            def norm(name: str, dtype: torch.dtype) -> _Norm:
                weight, bias = read(f"{name}.weight").to(dtype), read(f"{name}.bias").to(dtype)
                return lambda rows: functional.layer_norm(rows, weight.shape, weight, bias, sizes.epsilon)

            def layer(*names: str, gelu: bool = False) -> Layer:
                weight = torch.cat([read(f"{name}.weight").to(dtype) for name in names])
                bias = torch.cat([read(f"{name}.bias").to(dtype) for name in names])
                return linear(weight, bias, gelu=gelu)

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
        """Return one float32 vector per text [texts, size × modes], in order; each text has one token at least."""
        parts = divide([len(ids) for ids in texts], self._threads)
        if len(parts) == 1:
            return in_order([self._embed_part([texts[index] for index in parts[0]], modes)], parts)
        running = [self._pool.submit(self._embed_part, [texts[index] for index in part], modes) for part in parts]
        wait(running)
        return in_order([part.result() for part in running], parts)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def _embed_part(self, texts: Sequence[Sequence[int]], modes: Sequence[str]) -> Tensor:
        packed = pack(texts)
        with torch.inference_mode():
            hidden = self._embedded(packed)
            for block in self._blocks:
                hidden = self._through(block, hidden, packed.runs)
            return torch.cat([_pooled(hidden, run, modes) for run in packed.runs])

    def _embedded(self, packed: Packed) -> Tensor:
        more = [0] * (padded_rows(len(packed.ids)) - len(packed.ids))
        words = functional.embedding(torch.tensor(packed.ids + more), self._words).float()
        positions = functional.embedding(torch.tensor(packed.positions + more), self._positions)
        return self._norm(words.add_(positions)).to(self.dtype)

    def _through(self, block: _Block, hidden: Tensor, runs: Sequence[Run]) -> Tensor:
        attended = block.attended(self._attend(block.attend(hidden), runs))
        hidden = block.attended_norm(attended.add_(hidden))
        return block.norm(block.narrow(block.widen(hidden)).add_(hidden))

    def _attend(self, rows: Tensor, runs: Sequence[Run]) -> Tensor:
        """Attention of every token to those of its own text: [rows, 3 × size] → [rows, size]."""
        result = rows.new_empty(len(rows), self._heads, self._head_size)
        result[runs[-1].end :] = 0
        for run in runs:
            shape = (run.texts, run.tokens, 3, self._heads, self._head_size)
            query, key, value = rows[run.start : run.end].view(shape).permute(2, 0, 3, 1, 4)
            attended = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)
            result[run.start : run.end].view(shape[:2] + shape[3:]).copy_(attended)
        return result.view(len(rows), -1)


def _pooled(hidden: Tensor, run: Run, modes: Sequence[str]) -> Tensor:
    texts = hidden[run.start : run.end].view(run.texts, run.tokens, -1)
    return pool(texts, texts.new_ones(run.texts, run.tokens, dtype=torch.int64), modes)
