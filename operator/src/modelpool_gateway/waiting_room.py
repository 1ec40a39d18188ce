"""Requests that wait until somebody serves their model: bounded in number and time, told at once how it ends."""

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
#: A guest may have reasons of his own to pass over what the next one takes.
_FEW: Final = 4


class RoomFullError(Exception):
    """As many wait as may: for this model, or for all."""


class WaitedTooLongError(Exception):
    """Nothing has become of it within its time."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many may wait, for one model and in all."""

    per_model: int = 2000
    in_all: int = 5000


@dataclass(frozen=True, slots=True)
class Again(Generic[T]):
    """One more look, of another kind, that a guest has by himself after so many seconds."""

    seconds: float
    look: Callable[[], T | None]


@dataclass(slots=True, eq=False)
class _Guest(Generic[T]):
    look: Callable[[], T | None]
    found: asyncio.Future[T] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class WaitingRoom(Generic[K]):
    """Each guest has a look of his own at what is there; all of a model's look again whenever something changes.

    A look returns what the guest waits for or raises what becomes of him instead. It is made in one step with the news,
    so nothing can come between what is true and who is told; those who came first look first.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._guests: dict[K, dict[_Guest[Any], None]] = {}
        self._count = 0

    def __len__(self) -> int:
        """How many wait."""
        return self._count

    def waiting_for(self, key: K) -> int:
        """Return how many wait for this model."""
        return len(self._guests.get(key, ()))

    async def wait(self, key: K, look: Callable[[], T | None], seconds: float, again: Again[T] | None = None) -> T:
        """Return what ``look`` finds, now or after some change, or ``again`` finds in its time.

        Raises what ``look`` raises, `RoomFullError`, or `WaitedTooLongError` after so many seconds. A guest whose task
        is cancelled, because his client has left, gives his place back at once.
        """
        found = look()
        if found is not None:
            return found
        here = self._guests.get(key, {})
        if len(here) >= self._bounds.per_model or self._count >= self._bounds.in_all:
            raise RoomFullError
        guest: _Guest[T] = _Guest(look)
        self._guests.setdefault(key, here)[guest] = None
        self._count += 1
        timer: asyncio.TimerHandle | None = None
        if again is not None:
            timer = asyncio.get_running_loop().call_later(again.seconds, self._found, guest, again.look)
        try:
            async with asyncio.timeout(seconds):
                return await guest.found
        except TimeoutError as late:
            raise WaitedTooLongError from late
        finally:
            if timer is not None:
                timer.cancel()
            self._leave(key, guest)

    def waited_for(self) -> list[K]:
        """Return the models that somebody waits for."""
        return list(self._guests)

    def changed(self, key: K) -> None:
        """Have everybody who waits for this model look again."""
        self._look(key, None)

    def place_free(self, key: K) -> None:
        """Have those look who came first, until a few in a row find nothing: there is not more than one place."""
        if key in self._guests:
            self._look(key, _FEW)

    def all_changed(self) -> None:
        """Have everybody look again."""
        for key in self.waited_for():
            self.changed(key)

    def _look(self, key: K, misses: int | None) -> None:
        for guest in list(self._guests.get(key, ())):
            if not self._found(guest, guest.look) and misses is not None:
                misses -= 1
                if not misses:
                    return

    def _found(self, guest: _Guest[T], look: Callable[[], T | None]) -> bool:
        """Have a guest look; return whether he waits no more."""
        if guest.found.done():
            return True
        try:
            found = look()
        except Exception as end:  # what becomes of him instead is the guest's to raise
            guest.found.set_exception(end)
            return True
        if found is not None:
            guest.found.set_result(found)
        return guest.found.done()

    def _leave(self, key: K, guest: _Guest[T]) -> None:
        here = self._guests[key]
        del here[guest]
        self._count -= 1
        if not here:
            del self._guests[key]
