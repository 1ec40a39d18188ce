"""From one vector per token to one vector per text."""

from collections.abc import Sequence

import torch
from torch import Tensor


def pool(hidden: Tensor, mask: Tensor, modes: Sequence[str]) -> Tensor:
    """Pool ``hidden`` [batch, tokens, size] under ``mask`` [batch, tokens] (1 = token) to [batch, size × modes].

    Computed in float32, whatever the model's dtype. Padding may be on either side.
    """
    hidden = hidden.float()
    return torch.cat([_POOLS[mode](hidden, mask) for mode in modes], dim=1)


def in_order(vectors: Sequence[Tensor], parts: Sequence[Sequence[int]]) -> Tensor:
    """Put together the vectors [texts of the part, size] of parts that hold these indices: [texts, size]."""
    places = torch.tensor([index for part in parts for index in part], device=vectors[0].device)
    with torch.inference_mode():
        together = torch.cat(list(vectors))
        return torch.empty_like(together).index_copy_(0, places, together)


def _cls(hidden: Tensor, mask: Tensor) -> Tensor:
    return _pick(hidden, mask.argmax(dim=1))


def _last(hidden: Tensor, mask: Tensor) -> Tensor:
    return _pick(hidden, mask.shape[1] - 1 - mask.flip(1).argmax(dim=1))


def _max(hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden.masked_fill(mask.unsqueeze(-1) == 0, float("-inf")).amax(dim=1)


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    return _weighted(hidden, mask.float())


def _mean_sqrt(hidden: Tensor, mask: Tensor) -> Tensor:
    weights = mask.float()
    return _mean(hidden, mask) * weights.sum(dim=1, keepdim=True).sqrt()


def _weighted_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    return _weighted(hidden, mask.cumsum(dim=1).float() * mask)


def _weighted(hidden: Tensor, weights: Tensor) -> Tensor:
    total = weights.sum(dim=1, keepdim=True).clamp(min=1e-9)
    return (hidden * weights.unsqueeze(-1)).sum(dim=1) / total


def _pick(hidden: Tensor, positions: Tensor) -> Tensor:
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), positions]


_POOLS = {
    "cls": _cls,
    "lasttoken": _last,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt,
    "weightedmean": _weighted_mean,
}
