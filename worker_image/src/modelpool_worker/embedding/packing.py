"""Texts of different lengths laid one behind the other, without padding. Pure: lists of numbers only."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from math import ceil
from typing import Final, NamedTuple

#: Tokens calculated together on one CPU: enough rows for its matrix kernels, and few enough for its cache.
_PART_TOKENS: Final = 192


class Run(NamedTuple):
    """``texts`` neighbours of ``tokens`` tokens each, from row ``start`` on."""

    start: int
    texts: int
    tokens: int

    @property
    def end(self) -> int:
        """The row behind the last one."""
        return self.start + self.texts * self.tokens


@dataclass(frozen=True, slots=True)
class Packed:
    """Token ids and their positions, and the runs of texts of equal length that they form."""

    ids: list[int]
    positions: list[int]
    runs: list[Run]


def pack(texts: Sequence[Sequence[int]]) -> Packed:
    """Lay texts (one token at least each) behind each other, in their order: neighbours of equal length form a run."""
    runs: list[Run] = []
    start = 0
    for tokens, alike in groupby(texts, key=len):
        runs.append(Run(start, len(list(alike)), tokens))
        start = runs[-1].end
    positions = chain.from_iterable(range(len(text)) for text in texts)
    return Packed(list(chain.from_iterable(texts)), list(positions), runs)


def divide(lengths: Sequence[int], threads: int) -> list[list[int]]:
    """Divide texts among ``threads``: lists of indices sorted by length, each of about as many tokens.

    There are as many parts for each thread, where there are texts enough for that.
    """
    total = sum(lengths)
    count = threads * max(1, ceil(total / (_PART_TOKENS * threads)))
    parts: list[list[int]] = [[]]
    tokens = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if parts[-1] and tokens + lengths[index] / 2 > len(parts) * total / count:
            parts.append([])
        parts[-1].append(index)
        tokens += lengths[index]
    return parts
