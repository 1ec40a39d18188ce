"""How many bytes the worker holds of requests at once, sent or fetched: many large ones must not use up its memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from modelpool_worker.errors import QueueFullError

_RETRY_AFTER_SECONDS: Final = 1


class Held:
    """The bytes of one request, from when they arrive until it is answered."""

    def __init__(self, budget: "BodyBudget") -> None:
        self._budget = budget
        self.bytes = 0

    def take(self, count: int) -> None:
        """Hold so many more. Raises ``QueueFullError`` where all requests together hold too much.

        One request alone always may: its size is bounded by itself.
        """
        budget = self._budget
        others = budget.bytes - self.bytes
        if others and budget.bytes + count > budget.most:
            raise QueueFullError(
                "the requests that are being served are too large together; try again in a moment",
                retry_after=_RETRY_AFTER_SECONDS,
                headers={"Connection": "close"},
            )
        self.bytes += count
        budget.bytes += count


class BodyBudget:
    """What all requests together hold, at most ``most`` bytes. Used on the event loop's thread only."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.bytes = 0

    @contextmanager
    def hold(self) -> Iterator[Held]:
        """Hold a request's bytes as long as the context lasts."""
        held = Held(self)
        try:
            yield held
        finally:
            self.bytes -= held.bytes
