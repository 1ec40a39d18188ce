"""How much memory the processed images of waiting requests may take together."""

import weakref
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from modelpool_worker.errors import InvalidRequestError, QueueFullError

_RETRY_AFTER_SECONDS: Final = 1
_MIB: Final = 1024 * 1024


class Share:
    """What the images of one request take of a budget. They never wait for each other: only for those of others.

    ``param`` is what the request calls them.
    """

    __slots__ = ("held", "holds", "param", "taken")

    def __init__(self, param: str | None = None) -> None:
        self.param = param
        self.held = 0
        #: All that was ever held, freed or not: so it depends on the request alone whether it is too large.
        self.taken = 0
        self.holds = 0


class PixelBudget:
    """Counts tensors from when they are held until nobody refers to them any more.

    ``hold`` is called by one thread only; what is counted may be freed by any.
    """

    def __init__(self, limit: int) -> None:
        """``limit`` in bytes."""
        self._limit = limit
        self._used = 0
        # freeing may happen in the middle of anything, so it takes no lock and only leaves a note here
        self._freed: deque[tuple[Share, int]] = deque()

    def hold(self, tensors: Iterable[Any], share: Share | None = None) -> None:
        """Count these, which belong to the request of ``share``; None: they are all that their request has.

        Raises ``QueueFullError`` where there is no room beside what others hold, and ``InvalidRequestError`` where the
        request alone takes more than there is for all. What comes first and alone always fits: its size was bounded
        before.
        """
        share = share or Share()
        tensors = list(tensors)
        wanted = sum(tensor.nbytes for tensor in tensors)
        if not wanted:
            return
        while self._freed:
            owner, size = self._freed.popleft()
            owner.held -= size
            self._used -= size
        if share.taken and share.taken + wanted > self._limit:
            raise InvalidRequestError(
                f"the images of this request take more than the {self._limit / _MIB:.1f} MiB that this worker has for "
                f"images that wait; expected at most {share.holds} like these in one request",
                param=share.param,
            )
        if self._used > share.held and self._used + wanted > self._limit:
            raise QueueFullError(
                "the images of the requests that wait already take all the memory there is for them; try again in a "
                "moment",
                retry_after=_RETRY_AFTER_SECONDS,
            )
        self._used += wanted
        share.held += wanted
        share.taken += wanted
        share.holds += 1
        for tensor in tensors:
            weakref.finalize(tensor, self._freed.append, (share, tensor.nbytes)).atexit = False
