"""Which of the waiting inputs run next. Pure functions over what waits; nothing is removed here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

from modelpool_worker.scheduling.job import Item, Job

#: How many waiting items are looked at for one batch: enough to find neighbours in length, cheap to sort.
_WINDOW: Final = 512


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How large one batch may become. ``tokens`` is its padded size: longest item × number of items."""

    items: int
    tokens: int

    def below(self, items: int | None, tokens: int | None) -> "BatchLimits":
        """Return these limits, lowered to what a model asks for (None: nothing)."""
        return BatchLimits(min(self.items, items or self.items), min(self.tokens, tokens or self.tokens))


def choose_batch(jobs: Sequence[Job], limits: BatchLimits, sharers: int = 1) -> list[Item]:
    """Choose the items that run next in one batch, shortest first.

    The first item of the first job is always among them, whatever its length, so nothing starves; the others are
    those of its group and of similar length that fit beside it, taken from all jobs in turn, so a large job does not
    shut out small ones. The batch never holds more than ``limits.items``, nor pads to more than ``limits.tokens``
    unless that first item alone does; nor more than its share where ``sharers`` could run a batch now.
    """
    window = _in_turn(jobs, _WINDOW)
    if not window:
        return []
    most = min(limits.items, ceil(len(window) / sharers))
    anchor = window[0]
    longest = anchor.cost
    batch = [anchor]
    others = [item for item in window[1:] if item.group == anchor.group]
    # sorted() is stable: among equals those that came first stay first
    for item in sorted(others, key=lambda item: abs(item.cost - anchor.cost)):
        if len(batch) >= most:
            break
        padded = max(longest, item.cost) * (len(batch) + 1)
        if padded <= limits.tokens:
            batch.append(item)
            longest = max(longest, item.cost)
    return sorted(batch, key=lambda item: item.cost)


def choose_joins(jobs: Sequence[Job], running: Sequence[int], limits: BatchLimits) -> list[Item]:
    """Choose the items that join the rows already ``running`` (their costs), first come, first served.

    Nobody overtakes, so nothing starves; all rows together stay within the limits, padded to the longest. Where
    nothing runs the first item joins whatever its cost.
    """
    joins: list[Item] = []
    longest, rows = max(running, default=0), len(running)
    for item in _in_turn(jobs, limits.items):
        longest, rows = max(longest, item.cost), rows + 1
        if rows > 1 and (rows > limits.items or longest * rows > limits.tokens):
            break
        joins.append(item)
    return joins


def _in_turn(jobs: Iterable[Job], limit: int) -> list[Item]:
    """Return up to ``limit`` waiting items: the first of every job, then the second of every job, and so on."""
    window: list[Item] = []
    turns = [iter(job.waiting) for job in jobs if job.waiting]
    while turns and len(window) < limit:
        left = []
        for turn in turns:
            if len(window) >= limit:
                break
            if (item := next(turn, None)) is not None:
                window.append(item)
                left.append(turn)
        turns = left
    return window
