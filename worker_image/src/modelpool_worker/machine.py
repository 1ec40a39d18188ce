"""The worker's state: one writer, everybody else asks.

All of it runs on the event loop's thread and no method awaits between a check and the change it guards: that is
what makes an eviction and an admission exclude each other. The clock is passed in; timers live in the runner,
which calls ``tick``.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from modelpool_api import (
    EVICTABLE_STATES,
    ROUTABLE_STATES,
    EvictRequest,
    MemoryReport,
    Pong,
    WorkerEvent,
    WorkerState,
    WorkerTransition,
    next_state,
)
from modelpool_api.wire import MAX_MESSAGE_CHARS, MAX_TRANSITIONS
from modelpool_worker.errors import NotServingError

_RETRY_LOADING_SECONDS: Final = 5
_RETRY_EVICTING_SECONDS: Final = 1


@dataclass(frozen=True, slots=True)
class Move:
    """One move of the machine; ``at`` is monotonic seconds."""

    seq: int
    from_state: WorkerState
    to_state: WorkerState
    reason: str
    message: str
    at: float


@dataclass(frozen=True, slots=True)
class Gauges:
    """What a pong says besides the state: told by the runner, not decided here."""

    queue_depth: int = 0
    device: str = ""
    memory: MemoryReport | None = None


class Machine:
    """State, pending requests and idle time of one worker process. Begins in Loading."""

    def __init__(
        self,
        *,
        worker_id: str,
        boot_id: str,
        idle_timeout: float,
        clock: Callable[[], float],
        on_move: Callable[[Move], None] = lambda _move: None,
    ) -> None:
        self.worker_id = worker_id
        self.boot_id = boot_id
        self.phases: dict[str, float] = {}
        self._clock = clock
        self._on_move = on_move
        self._idle_timeout = idle_timeout
        self._state = WorkerState.LOADING
        self._seq = 0
        self._moves: deque[Move] = deque(maxlen=MAX_TRANSITIONS)
        self._pending = 0
        self._unused_since: float | None = None
        self._evict_accepted = False
        self._closed = False
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def state(self) -> WorkerState:
        """Where the worker is in its life."""
        return self._state

    @property
    def seq(self) -> int:
        """Number of the last move; 0 before the first."""
        return self._seq

    @property
    def pending(self) -> int:
        """Requests admitted and not yet answered."""
        return self._pending

    @property
    def evict_accepted(self) -> bool:
        """Whether an evict request was agreed to: then, and only then, the process ends with exit code 0."""
        return self._evict_accepted

    @property
    def reason(self) -> str:
        """Why the last move was made; empty before the first."""
        return self._moves[-1].reason if self._moves else ""

    @property
    def idle_timeout(self) -> float:
        """Seconds unused after which Ready becomes Idle."""
        return self._idle_timeout

    def fire(self, event: WorkerEvent, reason: str, message: str = "") -> Move:
        """Make the move that ``event`` asks for; raise ``IllegalTransitionError``, unchanged, if there is none."""
        to_state = next_state(self._state, event)
        now = self._clock()
        self._seq += 1
        move = Move(self._seq, self._state, to_state, reason, message[:MAX_MESSAGE_CHARS], now)
        self._state = to_state
        self._moves.append(move)
        if event in (WorkerEvent.LOADED, WorkerEvent.REQUESTS_DONE):
            self._unused_since = now
        self._wake()
        self._on_move(move)
        return move

    def check_serving(self) -> None:
        """Raise ``NotServingError`` unless a request would be admitted now."""
        if self._state not in ROUTABLE_STATES:
            evicting = self._state is WorkerState.EVICTING
            raise NotServingError(
                self._state, retry_after=_RETRY_EVICTING_SECONDS if evicting else _RETRY_LOADING_SECONDS
            )

    def admit(self) -> None:
        """Count one request in, or raise ``NotServingError``. Every admitted request is ended by one ``done``."""
        self.check_serving()
        if self._state is not WorkerState.PROCESSING:
            self.fire(WorkerEvent.REQUEST_ADMITTED, "RequestAdmitted")
        self._pending += 1

    def done(self) -> None:
        """Count one admitted request out: it was answered, or its client has left."""
        if self._pending <= 0:
            raise RuntimeError("done() without admit(): expected one call for every admitted request")
        self._pending -= 1
        if self._pending:
            return
        if self._state is WorkerState.PROCESSING:
            self.fire(WorkerEvent.REQUESTS_DONE, "RequestsDone")
        else:
            self._unused_since = self._clock()
            self._wake()

    def set_idle_timeout(self, seconds: float) -> None:
        """Take a new idle timeout; it counts from the end of the last request, not from now."""
        if seconds != self._idle_timeout:
            self._idle_timeout = seconds
            self._wake()

    def unused_for(self) -> float | None:
        """Return the seconds since the last request ended or since Ready; 0 while one is pending, None before Ready."""
        if self._unused_since is None:
            return None
        return 0.0 if self._pending else max(0.0, self._clock() - self._unused_since)

    def idle_due(self) -> float | None:
        """Return the seconds until Ready becomes Idle, 0 if that is due; None in every other state."""
        if self._state is not WorkerState.READY:
            return None
        return max(0.0, self._idle_timeout - (self.unused_for() or 0.0))

    def tick(self) -> None:
        """Do what time alone brings: Ready → Idle once it is due."""
        if self.idle_due() == 0.0:
            self.fire(WorkerEvent.IDLE_TIMEOUT, "IdleTimeout")

    def evict(self, request: EvictRequest) -> bool:
        """Decide an eviction and make the move, in one step; return whether it was agreed to.

        A request that was agreed to before is agreed to again, so that a lost answer may be asked for once more.
        """
        if request.worker_id != self.worker_id or request.boot_id != self.boot_id:
            return False
        if self._state is WorkerState.EVICTING:
            self._evict_accepted = self._evict_accepted or request.force
            return self._evict_accepted
        if not request.force:
            unused_for = self.unused_for()
            if self._state not in EVICTABLE_STATES or self._pending or unused_for is None:
                return False
            if unused_for < request.unused_for:
                return False
        self._evict_accepted = True
        self.fire(WorkerEvent.EVICT, request.reason)
        return True

    def terminate(self) -> None:
        """Take the pod's SIGTERM: Evicting, if it is not that already. Said twice it changes nothing."""
        if self._state is not WorkerState.EVICTING:
            self.fire(WorkerEvent.EVICT, "PodTerminating")

    def pong(self, gauges: Gauges, timestamp: float) -> Pong:
        """Say who this worker is and where it is in its life; ``timestamp`` is wall-clock Unix seconds."""
        now = self._clock()
        return Pong(
            worker_id=self.worker_id,
            boot_id=self.boot_id,
            state=self._state,
            seq=self._seq,
            timestamp=timestamp,
            queue_depth=gauges.queue_depth,
            pending_requests=self._pending,
            unused_for=self.unused_for(),
            transitions=tuple(
                WorkerTransition(
                    seq=move.seq,
                    from_state=move.from_state,
                    to_state=move.to_state,
                    reason=move.reason,
                    message=move.message,
                    age=max(0.0, now - move.at),
                )
                for move in self._moves
            ),
            device=gauges.device,
            memory=gauges.memory,
            phases=dict(self.phases),
        )

    async def moved_on(self, boot_id: str, seq: int, wait: float) -> None:
        """Return when this is another boot, when ``seq`` is not the last move any more, or after ``wait`` seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        while not self._closed and boot_id == self.boot_id and seq == self._seq:
            if (left := deadline - loop.time()) <= 0:
                return
            await self.changed(left)

    async def changed(self, timeout: float | None) -> None:  # noqa: ASYNC109 - a wait that may simply end
        """Return at the next change of state, pending requests' end or idle timeout, or after ``timeout`` seconds."""
        if self._closed:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait((waiter,), timeout=timeout)
        finally:
            self._waiters.discard(waiter)

    def close(self) -> None:
        """Let go of everybody who waits: the process is about to end."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()
