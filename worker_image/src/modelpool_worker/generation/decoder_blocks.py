"""The layers of a plain decoder, written so that torch runs them without the interpreter (see ``models/scripted.py``).

Plain is what Llama, Mistral and Qwen 2 and 3 have in common: RMS norms, rotated queries and keys, attention in groups,
and a gated SiLU.
"""

from collections.abc import Callable
from functools import cache
from typing import List, NamedTuple, Optional, Tuple  # noqa: UP035 - the names of types that TorchScript reads

import torch
from torch import Tensor
from torch.nn import functional

from modelpool_worker.models.linear import linear_rows
from modelpool_worker.models.scripted import scripted


class Weights(NamedTuple):
    """Weights [out, in] and biases of a layer's linear parts, and of its norms; queries, keys and values are joined.

    So are gate and rise of the part behind the attention. ``head_norm`` [heads + groups, head size] is that of queries
    and keys, of no numbers where they have none.
    """

    norm: Tensor
    joined: Tensor
    joined_bias: Optional[Tensor]  # noqa: UP045
    head_norm: Tensor
    out: Tensor
    out_bias: Optional[Tensor]  # noqa: UP045
    second_norm: Tensor
    wide: Tensor
    wide_bias: Optional[Tensor]  # noqa: UP045
    narrow: Tensor
    narrow_bias: Optional[Tensor]  # noqa: UP045


class Sizes(NamedTuple):
    """Heads of the attention, groups of them that share keys and values, the norms' epsilon.

    ``rearranged``: how the weights lie in memory, as `linear_rows` says.
    """

    heads: int
    groups: int
    epsilon: float
    rearranged: bool


class Past(NamedTuple):
    """Keys and values of what was read before, a tensor per layer: rows × groups × columns × head size.

    Where ``places`` [rows] is given they have room: each row's one new token is written to its own column, and
    ``columns`` of them are looked at. Else what is new comes behind them.
    """

    keys: List[Tensor]  # noqa: UP006
    values: List[Tensor]  # noqa: UP006
    places: Optional[Tensor]  # noqa: UP045
    columns: int


Blocks = Callable[
    [Tensor, list[Weights], Sizes, Past, tuple[Tensor, Tensor], Tensor | None, int],
    tuple[Tensor, list[Tensor], list[Tensor]],
]


def run_blocks(
    hidden: Tensor,
    weights: List[Weights],  # noqa: UP006
    sizes: Sizes,
    past: Past,
    turns: Tuple[Tensor, Tensor],  # noqa: UP006
    mask: Optional[Tensor],  # noqa: UP045
    more: int,
) -> Tuple[Tensor, List[Tensor], List[Tensor]]:  # noqa: UP006
    """Return ``hidden`` [texts, tokens, size] after all layers, and each layer's keys and values, past and new.

    ``turns`` are cosine and sine of the tokens' places [texts, tokens, head size], ``mask`` is added to the attention
    or says what it hears; without one a token hears those before it. ``more`` rows are calculated besides, so that
    their number is a usual one. Nothing is returned of keys and values that have room: they were written to.
    """
    texts, tokens, size = hidden.shape
    count = texts * tokens
    rows = functional.pad(hidden.reshape(count, size), (0, 0, 0, more))
    cosine, sine = turns
    places = past.places
    half = cosine.shape[2] // 2
    cosine = cosine.unsqueeze(2)
    # a half that is turned has the other one's sign, which is cheaper to change here
    sine = torch.cat((-sine[:, :, :half], sine[:, :, half:]), 2).unsqueeze(2)
    keys: List[Tensor] = []  # noqa: UP006
    values: List[Tensor] = []  # noqa: UP006
    for number in range(len(weights)):
        w = weights[number]
        joined = linear_rows(norm(rows, w.norm, sizes.epsilon), w.joined, w.joined_bias, False, sizes.rearranged)
        joined = joined.narrow(0, 0, count).view(texts, tokens, sizes.heads + 2 * sizes.groups, -1)
        turned = joined.narrow(2, 0, sizes.heads + sizes.groups)
        if w.head_norm.numel() > 0:
            turned = norm(turned, w.head_norm, sizes.epsilon)
        swapped = torch.cat((turned[:, :, :, half:], turned[:, :, :, :half]), 3)
        turned = torch.addcmul(turned * cosine, swapped, sine)
        query = turned.narrow(2, 0, sizes.heads).transpose(1, 2)
        key = turned.narrow(2, sizes.heads, sizes.groups).transpose(1, 2)
        value = joined.narrow(2, sizes.heads + sizes.groups, sizes.groups).transpose(1, 2)
        if places is not None:
            key = written(past.keys[number], key, places, past.columns)
            value = written(past.values[number], value, places, past.columns)
            # heads that share keys are so many queries of them
            query = query.reshape(texts, sizes.groups, sizes.heads // sizes.groups, -1)
            heard = functional.scaled_dot_product_attention(query, key, value, mask).reshape(count, -1)
        else:
            key, value = behind(past.keys[number], key), behind(past.values[number], value)
            keys.append(key)
            values.append(value)
            causal = mask is None and tokens > 1
            shared = sizes.heads // sizes.groups
            heard = functional.scaled_dot_product_attention(
                query, repeated(key, shared), repeated(value, shared), mask, is_causal=causal
            )
            heard = heard.transpose(1, 2).reshape(count, -1)
        heard = functional.pad(heard, (0, 0, 0, more))
        rows = linear_rows(heard, w.out, w.out_bias, False, sizes.rearranged).add_(rows)
        wide = linear_rows(norm(rows, w.second_norm, sizes.epsilon), w.wide, w.wide_bias, False, sizes.rearranged)
        gate, rise = wide.chunk(2, 1)
        wide = functional.silu(gate).mul_(rise)
        rows = linear_rows(wide, w.narrow, w.narrow_bias, False, sizes.rearranged).add_(rows)
    return rows.narrow(0, 0, count).view(texts, tokens, size), keys, values


def norm(rows: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """RMS norm over the last dimension; multiplied with the weight in the model's own format, as transformers does."""
    return torch.rms_norm(rows, rows.shape[-1:], None, epsilon).mul_(weight)


def written(room: Tensor, new: Tensor, places: Tensor, columns: int) -> Tensor:
    """Write each row's one column [rows, groups, 1, size] to its place; return the columns that are looked at."""
    rows = len(new)
    room.transpose(1, 2).index_put_([torch.arange(rows, device=new.device), places], new.squeeze(2))
    return room.narrow(0, 0, rows).narrow(2, 0, columns)


def behind(old: Tensor, new: Tensor) -> Tensor:
    """Join along the columns; a copy in any case, as ``new`` is a part of something larger."""
    return torch.cat((old, new), 2) if old.numel() > 0 else new.clone(memory_format=torch.contiguous_format)


def repeated(groups: Tensor, times: int) -> Tensor:
    """Give each head its own: [texts, groups, columns, size] → [texts, groups × times, columns, size]."""
    if times == 1:
        return groups
    texts, number, columns, size = groups.shape
    return groups.unsqueeze(2).expand(-1, -1, times, -1, -1).reshape(texts, number * times, columns, size)


@cache
def compiled() -> Blocks:
    """Return `run_blocks` as one operation where that can be done."""
    return scripted(run_blocks)
