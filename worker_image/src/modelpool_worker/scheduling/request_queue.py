"""The bounded queue between the requests and the one thread that runs the model."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import Final

from modelpool_worker.capabilities.base import Prepared
from modelpool_worker.errors import QueueFullError, RequestError
from modelpool_worker.scheduling.job import Item, Job

_RETRY_AFTER_SECONDS: Final = 1
#: Inputs of all requests that are not answered yet, by those that may wait: results that nobody reads take memory too.
_OPEN_BY_WAITING: Final = 2


class RequestQueue:
    """Requests that wait, in the order of their turns. Used on the event loop's thread only."""

    def __init__(self, *, max_requests: int, max_inputs: int) -> None:
        self._max_requests = max_requests
        self._max_inputs = max_inputs
        self._numbers = count(1)
        #: Jobs in the order of their turns, and how many inputs of each wait.
        self._jobs: dict[Job, int] = {}
        #: Sums over the jobs, kept as they change: every request asks for them.
        self._inputs = self._waiting_inputs = self._depth = 0
        self._filled = asyncio.Event()

    @property
    def depth(self) -> int:
        """Requests admitted of which nothing has run yet."""
        return self._depth

    @property
    def waiting_inputs(self) -> int:
        """Inputs of all requests that have not run yet, those included that are still being prepared."""
        return self._waiting_inputs

    def open(self, size: int) -> Job:
        """Give a request of ``size`` inputs its place, or raise ``QueueFullError``. Ended by ``close``.

        One request alone always fits: its size was bounded before. What has begun to run makes room as it runs, so a
        small request gets in beside large ones as soon as their first inputs have run.
        """
        waiting, inputs = self.depth, self.waiting_inputs
        most_open = _OPEN_BY_WAITING * self._max_inputs
        if (
            waiting >= self._max_requests
            or (inputs and inputs + size > self._max_inputs)
            or (self._jobs and self._inputs + size > most_open)
        ):
            raise QueueFullError(
                f"{waiting} requests and {inputs} inputs wait already and there is no room for more; expected fewer at "
                "once, try again in a moment",
                retry_after=_RETRY_AFTER_SECONDS,
            )
        job = Job(next(self._numbers), size, asyncio.get_running_loop().create_future(), failed=self._waits_no_more)
        self._jobs[job] = size
        self._inputs += size
        self._waiting_inputs += size
        self._depth += 1
        return job

    def put(self, job: Job, inputs: Sequence[Prepared], first: int = 0) -> None:
        """Queue prepared inputs of a job, numbered from ``first``."""
        if job in self._jobs and not job.over:
            job.waiting.extend(
                Item(job, index, each.value, each.cost, each.group) for index, each in enumerate(inputs, first)
            )
            self._filled.set()

    def close(self, job: Job) -> None:
        """Free the job's place. What still waits is dropped; what runs is finished and thrown away."""
        if job in self._jobs:
            self._waits_no_more(job)
            del self._jobs[job]
            self._inputs -= job.size
            self._depth -= not job.taken
            job.close()

    def take(self, choose: Callable[[Sequence[Job]], list[Item]]) -> list[Item]:
        """Remove and return the items that ``choose`` picks from the jobs; empty when nothing waits."""
        chosen = choose([job for job in self._jobs if not job.over])
        taken: dict[Job, set[int]] = {}
        for item in chosen:
            taken.setdefault(item.job, set()).add(item.index)
        for job, indices in taken.items():
            self._depth -= not job.taken
            job.taken += len(indices)
            self._jobs[job] -= len(indices)
            self._waiting_inputs -= len(indices)
            job.waiting = deque(item for item in job.waiting if item.index not in indices)
        if chosen:  # the job that was first goes last, so that each is first in its turn
            first = next(job for job in self._jobs if job in taken and not job.over)
            self._jobs[first] = self._jobs.pop(first)
        return chosen

    async def filled(self) -> None:
        """Return once something waits that ``take`` hands out."""
        # not what waits of a job that is over: until its request closes it the loop must run, and would not
        while not any(job.waiting and not job.over for job in self._jobs):
            self._filled.clear()
            await self._filled.wait()

    def fail_all(self, error: RequestError) -> None:
        """End every job with ``error``: the process is about to stop."""
        for job in list(self._jobs):
            job.fail(error)

    def _waits_no_more(self, job: Job) -> None:
        """Count no input of this job as waiting any more; called as often as anybody likes."""
        if job in self._jobs:
            self._waiting_inputs -= self._jobs[job]
            self._jobs[job] = 0
