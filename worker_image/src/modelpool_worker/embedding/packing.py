"""Texts of different lengths laid one behind the other, without padding. Pure: lists of numbers only."""

from collections.abc import Callable, Sequence
from itertools import chain
from math import ceil
from typing import Final, NamedTuple

#: Padded tokens calculated together: enough rows for the matrix kernels, and few enough for the cache.
_PART_TOKENS: Final = 192


class Packed(NamedTuple):
    """Token ids, their positions, and the lengths of the texts one behind the other."""

    ids: list[int]
    positions: list[int]
    lengths: list[int]


def pack(texts: Sequence[Sequence[int]], rows: Callable[[int], int] = lambda tokens: tokens) -> Packed:
    """Lay texts (one token at least each) behind each other.

    ``rows`` says how many rows to calculate for a number of tokens; where that is more, one more text fills them.
    """
    lengths = [len(text) for text in texts]
    ids = list(chain.from_iterable(texts))
    positions = list(chain.from_iterable(range(length) for length in lengths))
    if more := rows(len(ids)) - len(ids):
        lengths.append(more)
        ids += [0] * more
        positions += [0] * more
    return Packed(ids, positions, lengths)


def divide(lengths: Sequence[int], threads: int, most: int = _PART_TOKENS) -> list[list[int]]:
    """Divide texts among ``threads``: lists of indices sorted by length, each of about as many tokens.

    A part is not much larger than ``most`` tokens, but for a text that is. There are as many parts for each thread,
    where there are texts enough for that.
    """
    total = sum(lengths)
    count = threads * max(1, ceil(total / (most * threads)))
    parts: list[list[int]] = [[]]
    tokens = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if parts[-1] and tokens + lengths[index] / 2 > len(parts) * total / count:
            parts.append([])
        parts[-1].append(index)
        tokens += lengths[index]
    return parts
