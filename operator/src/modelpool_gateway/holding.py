"""Which worker a request goes to: one that is there, or one that it is held for, within bounds."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from modelpool_gateway import errors
from modelpool_gateway.directory import COMING, Directory, Key, Worker, model_key
from modelpool_gateway.endpoints import check, takes
from modelpool_gateway.errors import GatewayError
from modelpool_gateway.models import Model, Models
from modelpool_gateway.outlook import expect
from modelpool_gateway.progress import telling
from modelpool_gateway.ticket import Ticket
from modelpool_gateway.waiting_room import Again, RoomFullError, WaitedTooLongError, WaitingRoom
from modelpool_operator.api.names import Reason

#: Workers that have failed a request may have it again after so long, where nobody else is there to.
_AGAIN_SECONDS: Final = 1.0
#: So often may workers have no room for one that was held.
_TURNS: Final = 8
_REASONS: Final = frozenset(map(str, Reason))


class Asker(Protocol):
    """Whom the gateway tells what Models it needs. Calls return at once and never fail."""

    def want(self, model: Model) -> None:
        """Somebody waits for a worker of the Model."""

    def keep(self, model: Model, seconds: int) -> None:
        """The Model's workers are to stay so long after their last use; -1: for as long as may be."""


@dataclass(frozen=True, slots=True)
class HoldBounds:
    """Seconds that a request may be held for in all, and from one comment to the next for those who want them."""

    seconds: float = 300.0
    progress_seconds: float = 3.0


class Holding:
    """Finds a worker for each request. What is known is read from memory in one step; nothing is asked of anybody."""

    def __init__(
        self,
        directory: Directory,
        models: Models,
        room: WaitingRoom[Key],
        asker: Asker,
        server_now: Callable[[], datetime],
        bounds: HoldBounds,
        observe_hold: Callable[[float], None] = lambda _seconds: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory, self._models, self._room, self._asker = directory, models, room, asker
        self._server_now = server_now
        self._bounds = bounds
        self._observe_hold = observe_hold
        self._monotonic = monotonic
        self.closed = False
        #: uids of the workers whose breaker's pause somebody will be told the end of
        self._reminders: set[str] = set()

    def close(self) -> None:
        """Take nothing new, and tell all who wait so."""
        self.closed = True
        self._room.all_changed()

    def changed(self, key: Key) -> None:
        """The workers of a model, or its Models, are others now: have all look who wait for it."""
        self._directory.mark(key, {model.name: model.template for model in self._models.of(*key)})
        self._room.changed(key)

    def wanted(self) -> Iterator[Model]:
        """Iterate over the Models that somebody waits for now."""
        for key in self._room.waited_for():
            try:
                model = expect(list(self._directory.of(*key)), self._models.of(*key), (), self._server_now())
            except GatewayError:
                continue
            if model is not None:
                yield model

    async def worker_for(self, ticket: Ticket) -> Worker:
        """Return the worker that the request goes to; a place is taken there, in ``ticket.worker`` as well.

        Raises `GatewayError` where there will be none, or none in time, and `ClientLeftError`.
        """
        try:
            return self._look(ticket) or await self._held(ticket)
        except BaseException:
            if ticket.worker is not None:  # found in the very instant in which its time was over or its client left
                ticket.worker.breaker.abandoned(ticket.token)
                self.release(ticket)
            raise

    def release(self, ticket: Ticket) -> None:
        """Give the place at a worker back, and have those who wait for it look."""
        worker = ticket.worker
        if worker is None:
            return
        ticket.worker = None
        worker.give_back()
        if pause := worker.breaker.opens_in(self._monotonic()):
            self._remind(worker, pause)
        self._room.place_free(model_key(worker))

    def closed_again(self, worker: Worker) -> None:
        """Have all look who wait for a worker whose breaker has closed."""
        self._room.changed(model_key(worker))

    def state_of(self, key: Key) -> str:
        """Return in our words what the worker that is on its way is doing."""
        coming = [worker for worker in self._directory.of(*key) if worker.state in COMING and not worker.leaving]
        if not coming:
            serving = any(worker.serves for worker in self._directory.of(*key))
            return "for a place at a worker" if serving else "for a worker to be started"
        latest = max(coming, key=lambda worker: worker.version)
        return f"{latest.state} ({latest.reason})" if latest.reason in _REASONS else f"{latest.state}"

    def load_seconds(self, key: Key) -> float | None:
        """Return how long the latest cold start of the model has taken, None where none has been measured."""
        known = [model.cold_start_seconds for model in self._models.of(*key) if model.cold_start_seconds is not None]
        return max(known, default=None)

    def knows(self, key: Key) -> bool:
        """Whether there is a Model or a worker of this name."""
        return self._directory.knows(*key) or bool(self._models.of(*key))

    def _look(self, ticket: Ticket) -> Worker | None:
        if self.closed:
            raise errors.shutting_down()
        upload = ticket.asked.upload
        worker = self._directory.choose(*ticket.key, self._monotonic(), ticket.tried)
        # the rest is read only where it has to be; who is there takes most of what comes
        if worker is not None and takes(worker.capability, ticket.path, upload=upload):
            return _at(worker, ticket)
        members, models = list(self._directory.of(*ticket.key)), self._models.of(*ticket.key)
        capabilities = [*(model.capability for model in models), *(member.capability for member in members)]
        check(capabilities, ticket.path, upload=upload)
        if worker is not None:
            return _at(worker, ticket)
        wanted = expect(members, models, ticket.tried - ticket.full, self._server_now())
        if wanted is not None:
            self._asker.want(wanted)
        return None

    async def _held(self, ticket: Ticket) -> Worker:
        began = self._monotonic()
        if ticket.deadline is None:
            ticket.deadline = began + self._bounds.seconds
        again = Again(_AGAIN_SECONDS, lambda: self._forgiven(ticket)) if ticket.tried else None
        try:
            with ticket.leaving.cancels():
                async with telling(ticket, lambda: self.state_of(ticket.key), self._bounds.progress_seconds):
                    seconds = ticket.deadline - began
                    return await self._room.wait(ticket.key, lambda: self._look(ticket), seconds, again)
        except RoomFullError:
            raise errors.too_many_wait(self.load_seconds(ticket.key)) from None
        except WaitedTooLongError:
            state = self.state_of(ticket.key)
            raise errors.waited_too_long(self._bounds.seconds, state, self.load_seconds(ticket.key)) from None
        finally:
            self._observe_hold(self._monotonic() - began)

    def turned_away(self, ticket: Ticket) -> bool:
        """Note that the ticket's worker has no room for it; return whether it goes on, else its client hears of it.

        It goes to any other that it has not been to. One that was held before has been let go with all others at once,
        and what it may wait is not over: it comes again a few times.
        """
        if ticket.worker is None:
            return False
        ticket.tried.add(ticket.worker.uid)
        ticket.full.add(ticket.worker.uid)
        ticket.turned_away += 1
        now = self._monotonic()
        if self._directory.choose(*ticket.key, now, ticket.tried) is not None:
            return True
        waits = ticket.deadline is not None and now + _AGAIN_SECONDS < ticket.deadline
        return waits and ticket.turned_away <= _TURNS

    def _remind(self, worker: Worker, seconds: float) -> None:
        """Have somebody look when a breaker's pause is over: all failures of a worker have one reminder together."""
        if worker.uid in self._reminders:
            return
        self._reminders.add(worker.uid)
        asyncio.get_running_loop().call_later(seconds, self._pause_over, worker)

    def _pause_over(self, worker: Worker) -> None:
        self._reminders.discard(worker.uid)
        if pause := worker.breaker.opens_in(self._monotonic()):  # it has failed once more since
            self._remind(worker, pause)
        else:
            self._room.place_free(model_key(worker))  # one is on trial, no more

    def _forgiven(self, ticket: Ticket) -> Worker | None:
        ticket.tried.clear()
        ticket.full.clear()
        return self._look(ticket)


def _at(worker: Worker, ticket: Ticket) -> Worker:
    """Take a place at the worker."""
    ticket.worker, ticket.token = worker, worker.take()
    return worker
