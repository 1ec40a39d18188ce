"""Texts of different lengths laid one behind the other, without padding. Pure: lists of numbers only."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import NamedTuple


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
    """Token ids, their positions, the runs of equal length that they form, and where each given text went."""

    ids: list[int]
    positions: list[int]
    runs: list[Run]
    places: list[int]


def pack(texts: Sequence[Sequence[int]]) -> Packed:
    """Lay texts (one token at least each) behind each other, the shortest first."""
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    places = [0] * len(texts)
    for place, index in enumerate(order):
        places[index] = place
    runs: list[Run] = []
    start = 0
    for tokens, alike in groupby(order, key=lambda index: len(texts[index])):
        runs.append(Run(start, len(list(alike)), tokens))
        start = runs[-1].end
    ids = list(chain.from_iterable(texts[index] for index in order))
    positions = list(chain.from_iterable(range(len(texts[index])) for index in order))
    return Packed(ids, positions, runs, places)
