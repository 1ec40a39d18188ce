"""The layers of a plain BERT encoder, written so that torch runs them without the interpreter.

Else of two CPUs a quarter is idle while requests are answered (see ``models/scripted.py``).
"""

from collections.abc import Callable
from functools import cache
from typing import List  # noqa: UP035 - the only name of a list that TorchScript reads here

import torch
from torch import Tensor
from torch.nn import functional

from modelpool_worker.models.linear import linear_rows
from modelpool_worker.models.scripted import scripted

#: ``(rows [tokens, size], weights, lengths, heads, epsilon, rearranged) → rows``.
Blocks = Callable[[Tensor, list[Tensor], list[int], int, float, bool], Tensor]

#: Names of a layer's parts in the order in which `run_blocks` takes a weight and a bias of each. Those of the first
#: entry are joined to one.
PARTS = (
    ("attention.self.query", "attention.self.key", "attention.self.value"),
    ("attention.output.dense",),
    ("attention.output.LayerNorm",),
    ("intermediate.dense",),
    ("output.dense",),
    ("output.LayerNorm",),
)


def run_blocks(
    rows: Tensor,
    weights: List[Tensor],  # noqa: UP006
    lengths: List[int],  # noqa: UP006
    heads: int,
    epsilon: float,
    rearranged: bool,
) -> Tensor:
    """Return the rows [tokens, size] of texts of these lengths after all layers; 12 ``weights`` each (``PARTS``)."""
    for first in range(0, len(weights), 12):
        w = weights[first : first + 12]
        heard = attend(linear_rows(rows, w[0], w[1], False, rearranged), lengths, heads)
        heard = linear_rows(heard, w[2], w[3], False, rearranged).add_(rows)
        rows = functional.layer_norm(heard, w[4].shape, w[4], w[5], epsilon)
        wide = linear_rows(rows, w[6], w[7], True, rearranged)
        narrow = linear_rows(wide, w[8], w[9], False, rearranged).add_(rows)
        rows = functional.layer_norm(narrow, w[10].shape, w[10], w[11], epsilon)
    return rows


def attend(rows: Tensor, lengths: List[int], heads: int) -> Tensor:  # noqa: UP006
    """Attention of every token to those of its own text: [tokens, 3 × size] → [tokens, size].

    In float32 whatever the format: for short texts it is faster, and the sums are exact. Texts of equal length that
    are neighbours go together.
    """
    left = rows.float()
    attended: List[Tensor] = []  # noqa: UP006
    row = 0
    text = 0
    while text < len(lengths):
        length = lengths[text]
        after = text + 1
        while after < len(lengths) and lengths[after] == length:
            after += 1
        here = left.narrow(0, row, (after - text) * length).view(after - text, length, 3, heads, -1)
        query, key, value = here.permute(2, 0, 3, 1, 4).unbind()
        heard = functional.scaled_dot_product_attention(query, key, value)
        attended.append(heard.transpose(1, 2).flatten(0, 1))
        row += (after - text) * length
        text = after
    return torch.cat(attended).flatten(1).to(rows.dtype)


@cache
def compiled() -> Blocks:
    """Return `run_blocks` as one operation where that can be done."""
    return scripted(run_blocks)
