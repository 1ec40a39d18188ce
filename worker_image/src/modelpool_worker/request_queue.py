"""Requests that wait for the model, and which of them run next.

Choosing is a pure function over what waits; the queue is used on the event loop's thread only.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from modelpool_worker.errors import QueueFullError, RequestError

#: How many waiting items are looked at for one batch: enough to find neighbours in length, cheap to sort.
_WINDOW: Final = 512
_RETRY_AFTER_SECONDS: Final = 1


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How large one batch may become. ``tokens`` is its padded size: longest item × number of items."""

    items: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Item:
    """One piece of a job: ``value`` is what the capability prepared, ``cost`` its length in tokens."""

    job: "Job"
    index: int
    value: Any
    cost: int


@dataclass(eq=False, slots=True)
class Job:
    """One request's work. ``answer`` resolves to the results in the order of the inputs."""

    number: int
    size: int
    answer: "asyncio.Future[list[Any]]"
    waiting: deque[Item] = field(default_factory=deque)
    results: dict[int, Any] = field(default_factory=dict)
    started: bool = False

    @property
    def over(self) -> bool:
        """Whether nobody waits for the answer any more: answered, failed, or its client has left."""
        return self.answer.done()

    def deliver(self, index: int, result: Any) -> None:
        """Take one result; the last one resolves the answer. What comes after the client has left is dropped."""
        if self.over:
            return
        self.results[index] = result
        if len(self.results) == self.size:
            self.answer.set_result([self.results[i] for i in range(self.size)])

    def fail(self, error: RequestError) -> None:
        """End the job with an error; what is left of it will not run."""
        self.waiting.clear()
        if not self.over:
            self.answer.set_exception(error)


def choose_batch(jobs: Sequence[Job], limits: BatchLimits) -> list[Item]:
    """Choose the items that run next, shortest first; nothing is removed.

    The first item of the first job is always among them, whatever its length, so nothing starves; the others are
    those of similar length that fit beside it, taken from all jobs in turn, so a large job does not shut out small
    ones. The batch never holds more than ``limits.items``, nor pads to more than ``limits.tokens`` unless that
    first item alone does.
    """
    window = _in_turn(jobs, _WINDOW)
    if not window:
        return []
    anchor = window[0]
    longest = anchor.cost
    batch = [anchor]
    # sorted() is stable: among equals those that came first stay first
    for item in sorted(window[1:], key=lambda item: abs(item.cost - anchor.cost)):
        if len(batch) >= limits.items:
            break
        padded = max(longest, item.cost) * (len(batch) + 1)
        if padded <= limits.tokens:
            batch.append(item)
            longest = max(longest, item.cost)
    return sorted(batch, key=lambda item: item.cost)


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


class RequestQueue:
    """The bounded queue between the requests and the one thread that runs the model."""

    def __init__(self, *, max_requests: int, max_inputs: int, limits: BatchLimits) -> None:
        self._max_requests = max_requests
        self._max_inputs = max_inputs
        self._limits = limits
        self._numbers = count(1)
        self._jobs: dict[Job, None] = {}
        self._inputs = 0
        self._filled = asyncio.Event()

    @property
    def depth(self) -> int:
        """Requests admitted of which nothing has run yet."""
        return sum(1 for job in self._jobs if not job.started)

    def open(self, size: int) -> Job:
        """Give a request of ``size`` inputs its place, or raise ``QueueFullError``. Ended by ``close``.

        One request alone always fits: its size was bounded before.
        """
        waiting = self.depth
        if waiting >= self._max_requests or (waiting and self._inputs + size > self._max_inputs):
            raise QueueFullError(
                f"{waiting} requests wait already and there is no room for more; try again in a moment",
                retry_after=_RETRY_AFTER_SECONDS,
            )
        job = Job(next(self._numbers), size, asyncio.get_running_loop().create_future())
        self._jobs[job] = None
        self._inputs += size
        return job

    def put(self, job: Job, values: Sequence[tuple[Any, int]], first: int = 0) -> None:
        """Queue prepared inputs (value, cost) of a job, numbered from ``first``."""
        if job in self._jobs and not job.over:
            job.waiting.extend(Item(job, first + i, value, cost) for i, (value, cost) in enumerate(values))
            self._filled.set()

    def close(self, job: Job) -> None:
        """Free the job's place. What still waits is dropped; what runs is finished and thrown away."""
        if job in self._jobs:
            del self._jobs[job]
            self._inputs -= job.size
            job.waiting.clear()
            if not job.over:
                job.answer.cancel()

    def take(self) -> list[Item]:
        """Remove and return the next batch; empty when nothing waits."""
        batch = choose_batch([job for job in self._jobs if not job.over], self._limits)
        taken: dict[Job, set[int]] = {}
        for item in batch:
            item.job.started = True
            taken.setdefault(item.job, set()).add(item.index)
        for job, indices in taken.items():
            job.waiting = deque(item for item in job.waiting if item.index not in indices)
        if batch:  # the job that was first goes last, so that each is first in its turn
            first = next(job for job in self._jobs if job in taken and not job.over)
            del self._jobs[first]
            self._jobs[first] = None
        return batch

    async def filled(self) -> None:
        """Return once something waits."""
        while not any(job.waiting for job in self._jobs):
            self._filled.clear()
            await self._filled.wait()

    def fail_all(self, error: RequestError) -> None:
        """End every job with ``error``: the process is about to stop."""
        for job in list(self._jobs):
            job.fail(error)
