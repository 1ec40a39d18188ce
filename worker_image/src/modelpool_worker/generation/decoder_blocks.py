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
    """A layer's rearranged linear weights [out, in], biases and norms; what is calculated of the same rows is joined.

    ``qk_norm`` [heads + groups, head size] is that of queries and keys, and has no numbers where there is none.
    """

    attention_norm: Tensor
    qkv: Tensor
    qkv_bias: Optional[Tensor]  # noqa: UP045
    qk_norm: Tensor
    output: Tensor
    output_bias: Optional[Tensor]  # noqa: UP045
    mlp_norm: Tensor
    gate_up: Tensor
    gate_up_bias: Optional[Tensor]  # noqa: UP045
    down: Tensor
    down_bias: Optional[Tensor]  # noqa: UP045


class Sizes(NamedTuple):
    """Heads of the attention, groups of them that share keys and values, the norms' epsilon."""

    heads: int
    groups: int
    epsilon: float


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
    rotation: Tuple[Tensor, Tensor],  # noqa: UP006
    mask: Optional[Tensor],  # noqa: UP045
    more: int,
) -> Tuple[Tensor, List[Tensor], List[Tensor]]:  # noqa: UP006
    """Return ``hidden`` [texts, tokens, size] after all layers, and each layer's keys and values, past and new.

    ``rotation`` has cosine and sine of the tokens' places [texts, tokens, head size], ``mask`` is added to the
    attention or says what it hears; without one a token hears those before it. ``more`` rows are calculated besides, so
    that their number is a usual one. Nothing is returned of keys and values that have room: they were written to.
    """
    texts, tokens, size = hidden.shape
    count = texts * tokens
    heads, groups, epsilon = sizes
    places = past.places
    slots = torch.arange(texts, device=hidden.device)
    cosine, sine = rotation
    half = cosine.shape[2] // 2
    cosine = cosine.unsqueeze(2)
    # of the halves that are swapped one changes its sign, which is cheaper to do here
    sine = torch.cat((-sine[:, :, :half], sine[:, :, half:]), 2).unsqueeze(2)
    keys: List[Tensor] = []  # noqa: UP006
    values: List[Tensor] = []  # noqa: UP006
    rows = functional.pad(hidden.reshape(count, size), (0, 0, 0, more))
    for layer in range(len(weights)):
        w = weights[layer]
        qkv = linear_rows(norm(rows, w.attention_norm, epsilon), w.qkv, w.qkv_bias, False, True)
        qkv = qkv.narrow(0, 0, count).view(texts, tokens, heads + 2 * groups, -1)
        rotated = qkv.narrow(2, 0, heads + groups)
        if w.qk_norm.numel() > 0:
            rotated = norm(rotated, w.qk_norm, epsilon)
        swapped = torch.cat((rotated[:, :, :, half:], rotated[:, :, :, :half]), 3)
        rotated = torch.addcmul(rotated * cosine, swapped, sine)
        query = rotated.narrow(2, 0, heads).transpose(1, 2)
        key = rotated.narrow(2, heads, groups).transpose(1, 2)
        value = qkv.narrow(2, heads + groups, groups).transpose(1, 2)
        if places is not None:
            key = written(past.keys[layer], key, slots, places, past.columns)
            value = written(past.values[layer], value, slots, places, past.columns)
            # heads that share keys are so many queries of them
            query = query.reshape(texts, groups, heads // groups, -1)
            heard = functional.scaled_dot_product_attention(query, key, value, mask)
        else:
            key, value = behind(past.keys[layer], key), behind(past.values[layer], value)
            keys.append(key)
            values.append(value)
            causal = mask is None and tokens > 1
            heard = functional.scaled_dot_product_attention(
                query, key, value, mask, is_causal=causal, enable_gqa=True
            ).transpose(1, 2)
        heard = functional.pad(heard.reshape(count, -1), (0, 0, 0, more))
        rows = linear_rows(heard, w.output, w.output_bias, False, True).add_(rows)
        gate_up = linear_rows(norm(rows, w.mlp_norm, epsilon), w.gate_up, w.gate_up_bias, False, True)
        gate, up = gate_up.chunk(2, 1)
        rows = linear_rows(functional.silu(gate).mul_(up), w.down, w.down_bias, False, True).add_(rows)
    return rows.narrow(0, 0, count).view(texts, tokens, size), keys, values


def norm(rows: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """RMS norm over the last dimension; multiplied with the weight in the model's own format, as transformers does."""
    return torch.rms_norm(rows, rows.shape[-1:], None, epsilon).mul_(weight)


def written(room: Tensor, new: Tensor, slots: Tensor, places: Tensor, columns: int) -> Tensor:
    """Write each row's one column [rows, groups, 1, size] to its slot and place; return the columns looked at."""
    room.transpose(1, 2).index_put_([slots, places], new.squeeze(2))
    return room.narrow(0, 0, len(new)).narrow(2, 0, columns)


def behind(old: Tensor, new: Tensor) -> Tensor:
    """Join along the columns; a copy in any case, as ``new`` is a part of something larger."""
    return torch.cat((old, new), 2) if old.numel() > 0 else new.clone(memory_format=torch.contiguous_format)


@cache
def compiled() -> Blocks:
    """Return `run_blocks` as one operation where that can be done."""
    return scripted(run_blocks)
