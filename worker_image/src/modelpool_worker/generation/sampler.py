"""Which token comes next, for many rows at once, each by its own rules. Imports torch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import torch
from torch import Tensor

from modelpool_worker.generation.request import Sampling

#: Below this temperature nothing but the likeliest token is ever drawn.
_COLD: Final = 1e-4
#: So many of the likeliest tokens are looked at first: they nearly always make up ``top_p``.
_LIKELY: Final = 512
_BLOCK: Final = 256
_CLASS_BITS: Final = 15
_CLASSES: Final = (0x3F800000 >> _CLASS_BITS) + 2
_SEEDS: Final = 2**63


class Logprobs(NamedTuple):
    """How likely the chosen token was (natural logarithm), and the likeliest tokens, most likely first."""

    chosen: float
    top: tuple[tuple[int, float], ...]


class Chosen(NamedTuple):
    """A row's next token."""

    token: int
    logprobs: Logprobs | None = None


@dataclass(slots=True, eq=False)
class Draw:
    """How one row draws its tokens: its rules, its own random numbers, and what its penalties take by now."""

    sampling: Sampling
    generator: torch.Generator | None
    penalty: Tensor | None = None
    seen: set[int] = field(default_factory=set)

    @classmethod
    def begin(cls, sampling: Sampling, choice: int = 0) -> "Draw":
        """Start a row; random numbers come from the CPU, so that a seed gives the same text on every device."""
        generator = None
        if sampling.temperature >= _COLD:
            generator = torch.Generator()
            if sampling.seed is None:
                generator.seed()
            else:
                generator.manual_seed((sampling.seed + choice) % _SEEDS)
        return cls(sampling, generator)

    def took(self, token: int, logits: Tensor) -> None:
        """Remember a chosen token for the penalties; ``logits`` gives the vocabulary's size and device."""
        sampling = self.sampling
        if not (sampling.presence_penalty or sampling.frequency_penalty):
            return
        if self.penalty is None:
            self.penalty = torch.zeros_like(logits)
        self.penalty[token] += sampling.frequency_penalty + (0 if token in self.seen else sampling.presence_penalty)
        self.seen.add(token)


def choose(logits: Tensor, draws: Sequence[Draw]) -> list[Chosen | None]:
    """Choose a token for each row of ``logits`` (rows × vocabulary); None where its numbers are not finite.

    What a row gets does not depend on the others.
    """
    logits = logits.float()
    raw = logits
    penalties = {row: draw.penalty for row, draw in enumerate(draws) if draw.penalty is not None}
    if penalties:
        logits = logits.clone()
        for row, penalty in penalties.items():
            logits[row] -= penalty
    best = logits.argmax(dim=-1)
    # argmax finds what is not a number, if there is any
    finite = logits.gather(1, best[:, None]).squeeze(1).isfinite().tolist()
    tokens = best.tolist()
    drawn = [row for row, draw in enumerate(draws) if draw.generator is not None and finite[row]]
    if drawn:
        for row, token in zip(drawn, _draw(logits[drawn], [draws[row] for row in drawn]), strict=True):
            tokens[row] = token
    logprobs = _logprobs(raw, tokens, [draw.sampling.top_logprobs for draw in draws])
    chosen: list[Chosen | None] = []
    for row, draw in enumerate(draws):
        if not finite[row]:
            chosen.append(None)
            continue
        draw.took(tokens[row], raw[row])
        chosen.append(Chosen(tokens[row], logprobs.get(row)))
    return chosen


def _draw(logits: Tensor, draws: Sequence[Draw]) -> list[int]:
    """Draw a token per row with one random number each, by the inverse of the cumulative distribution."""
    numbers = torch.stack([torch.rand((), generator=draw.generator, dtype=torch.float64) for draw in draws])
    numbers = numbers.to(logits.device)
    heat = torch.tensor([draw.sampling.temperature for draw in draws], dtype=torch.float32, device=logits.device)
    weights = ((logits - logits.amax(dim=-1, keepdim=True)) / heat[:, None]).softmax(dim=-1)
    tokens = [0] * len(draws)
    whole = [row for row, draw in enumerate(draws) if draw.sampling.top_p >= 1]
    nucleus = [row for row, draw in enumerate(draws) if draw.sampling.top_p < 1]
    if whole:
        places = _pick(weights[whole], numbers[whole])
        for row, token in zip(whole, places.tolist(), strict=True):
            tokens[row] = token
    if nucleus:
        shares = torch.tensor([draws[row].sampling.top_p for row in nucleus], dtype=torch.float64, device=logits.device)
        for row, token in zip(nucleus, _pick_likely(weights[nucleus], shares, numbers[nucleus]), strict=True):
            tokens[row] = token
    return tokens


def _pick_likely(weights: Tensor, shares: Tensor, numbers: Tensor) -> list[int]:
    """Pick among the fewest likeliest tokens that together have the row's share."""
    values, order = weights.topk(min(_LIKELY, weights.shape[-1]), dim=-1)
    sums = values.double().cumsum(dim=-1)
    # the first place where the share is reached is the last that may be drawn
    last = torch.searchsorted(sums, shares[:, None]).clamp(max=sums.shape[-1] - 1)
    places = torch.searchsorted(sums, numbers[:, None] * sums.gather(1, last), right=True).minimum(last)
    tokens = order.gather(1, places).squeeze(1)
    beyond = sums[:, -1] < shares
    if values.shape[-1] < weights.shape[-1] and bool(beyond.any()):
        tokens[beyond] = _pick(_cut(weights[beyond], shares[beyond]), numbers[beyond])
    return [int(token) for token in tokens.tolist()]


def _cut(weights: Tensor, shares: Tensor) -> Tensor:
    """Set to zero what is less likely than the tokens that together have the share.

    Weights are counted in classes, by the first bits of their float, which takes a hundredth of the time of sorting:
    at the edge tokens that differ by less than 1 in 256 stay together.
    """
    # floats that are not negative are ordered as their bits are, read as integers; none is above 1
    classes = weights.view(torch.int32) >> _CLASS_BITS
    sums = torch.zeros((len(weights), _CLASSES), device=weights.device)
    sums.scatter_add_(1, classes.long(), weights)
    from_top = sums.flip(-1).double().cumsum(dim=-1)
    least = _CLASSES - 1 - torch.searchsorted(from_top, shares[:, None]).clamp(max=_CLASSES - 1)
    return weights * (classes >= least)


def _pick(weights: Tensor, numbers: Tensor) -> Tensor:
    """Return, for each row, where the cumulative weights reach the number's share of their sum.

    First the block, then the place in it: sums of single weights over a whole vocabulary take long.
    """
    rows, size = weights.shape
    blocks = torch.nn.functional.pad(weights, (0, -size % _BLOCK)).view(rows, -1, _BLOCK)
    ends = blocks.sum(dim=-1, dtype=torch.float64).cumsum(dim=-1)
    goals = numbers[:, None] * ends[:, -1:]
    block = torch.searchsorted(ends, goals, right=True).clamp(max=ends.shape[-1] - 1)
    inside = blocks[torch.arange(rows, device=weights.device), block.squeeze(1)]
    goals = goals - torch.where(block > 0, ends.gather(1, (block - 1).clamp(min=0)), 0.0)
    place = torch.searchsorted(inside.double().cumsum(dim=-1), goals, right=True)
    # a sum that was rounded down must not lead to a place that has no weight
    last = _BLOCK - 1 - inside.flip(-1).gt(0).int().argmax(dim=-1, keepdim=True)
    return (block * _BLOCK + place.minimum(last)).squeeze(1)


def _logprobs(logits: Tensor, tokens: Sequence[int], wanted: Sequence[int | None]) -> dict[int, Logprobs]:
    """Return the logprobs of the rows that want some, from the model's own distribution."""
    rows = [row for row, count in enumerate(wanted) if count is not None]
    if not rows:
        return {}
    normal = logits[rows].log_softmax(dim=-1)
    chosen = normal.gather(1, torch.tensor([[tokens[row]] for row in rows], device=logits.device)).squeeze(1).tolist()
    most = min(max(wanted[row] or 0 for row in rows), logits.shape[-1])
    values, places = normal.topk(most, dim=-1)
    tops = [list(zip(*pair, strict=True)) for pair in zip(places.tolist(), values.tolist(), strict=True)]
    return {row: Logprobs(chosen[each], tuple(tops[each][: wanted[row]])) for each, row in enumerate(rows)}
