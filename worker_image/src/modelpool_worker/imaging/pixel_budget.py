"""How much memory the processed images of waiting requests may take together."""

import weakref
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from modelpool_worker.errors import QueueFullError

_RETRY_AFTER_SECONDS: Final = 1


class PixelBudget:
    """Counts tensors from when they are held until nobody refers to them any more.

    ``hold`` is called by one thread only; what is counted may be freed by any.
    """

    def __init__(self, limit: int) -> None:
        """``limit`` in bytes."""
        self._limit = limit
        self._used = 0
        # freeing may happen in the middle of anything, so it takes no lock and only leaves a note here
        self._freed: deque[int] = deque()

    def hold(self, tensors: Iterable[Any]) -> None:
        """Count these; raise ``QueueFullError`` where there is no room beside what is held already.

        What comes while nothing is held always fits: its size was bounded before.
        """
        tensors = list(tensors)
        wanted = sum(tensor.nbytes for tensor in tensors)
        while self._freed:
            self._used -= self._freed.popleft()
        if wanted and self._used and self._used + wanted > self._limit:
            raise QueueFullError(
                "the images of the requests that wait already take all the memory there is for them; try again in a "
                "moment",
                retry_after=_RETRY_AFTER_SECONDS,
            )
        self._used += wanted
        for tensor in tensors:
            weakref.finalize(tensor, self._freed.append, tensor.nbytes).atexit = False
