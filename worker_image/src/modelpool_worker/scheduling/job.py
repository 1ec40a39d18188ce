"""A request's work while it waits, runs and is answered. Used on the event loop's thread only."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from modelpool_worker.errors import RequestError, TooFarBehindError


@dataclass(frozen=True, slots=True)
class Item:
    """One input of a job, prepared: ``cost`` is its length for batching; only equal ``group`` runs in one batch."""

    job: "Job"
    index: int
    value: Any
    cost: int
    group: Hashable = None


@dataclass(eq=False, slots=True)
class Job:
    """One request's work. ``answer`` resolves to the results in the order of the inputs.

    ``taken`` inputs have left the queue: they run, or have run. More than ``most_pieces`` that nobody takes end it.
    ``failed`` is called once, with the job, when it ends by an error.
    """

    number: int
    size: int
    answer: "asyncio.Future[list[Any]]"
    waiting: deque[Item] = field(default_factory=deque)
    results: dict[int, Any] = field(default_factory=dict)
    taken: int = 0
    most_pieces: int | None = None
    failed: "Callable[[Job], None] | None" = None
    _wanted: int = 1
    _pieces: deque[tuple[int, Any]] = field(default_factory=deque)
    _told: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def over(self) -> bool:
        """Whether nobody waits for the answer any more: answered, failed, or its client has left."""
        return self.answer.done()

    def emit(self, index: int, piece: Any) -> None:
        """Pass on a piece of the result that ``index`` becomes.

        A client that is too far behind loses its rows, and what waits for it: memory must not grow with its patience.
        """
        if self.over:
            return
        self._pieces.append((index, piece))
        if self.most_pieces is not None and len(self._pieces) > self.most_pieces:
            self._pieces.clear()
            self.fail(
                TooFarBehindError("the stream was read too slowly; expected a client that keeps up with the text")
            )
        elif len(self._pieces) >= self._wanted:
            self._told.set()

    def deliver(self, index: int, result: Any) -> None:
        """Take one result; the last one resolves the answer. What comes after the client has left is dropped."""
        if self.over:
            return
        self.results[index] = result
        if len(self.results) == self.size:
            self.answer.set_result([self.results[i] for i in range(self.size)])
            self._told.set()

    def fail(self, error: RequestError) -> None:
        """End the job with an error; what is left of it will not run."""
        self.waiting.clear()
        if not self.over:
            self.answer.set_exception(error)
            self._told.set()
            if self.failed is not None:
                self.failed(self)

    async def next_pieces(self, *, least: int = 1, most: int | None = None) -> list[tuple[int, Any]]:
        """Return pieces (index, piece) that wait, up to ``most``, once there are ``least`` or no more will come.

        None when every result is complete. Raises the job's error once the pieces before it were taken.
        """
        self._wanted = least
        while len(self._pieces) < least and not self.over:
            self._told.clear()
            await self._told.wait()
        if not self._pieces:
            self.answer.result()
        number = len(self._pieces) if most is None else min(most, len(self._pieces))
        return [self._pieces.popleft() for _ in range(number)]

    async def pieces(self) -> AsyncIterator[tuple[int, Any]]:
        """Yield (index, piece) as they come, until every result is complete; then raise the job's error, if any."""
        while pieces := await self.next_pieces():
            for piece in pieces:
                yield piece

    def close(self) -> None:
        """Give up what is not done; nobody will look at the answer any more."""
        self.waiting.clear()
        self._pieces.clear()
        if not self.answer.cancel() and not self.answer.cancelled():
            self.answer.exception()  # looked at, so that asyncio does not complain that nobody did
