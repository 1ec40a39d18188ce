"""A worker's process: the real state machine, and beside it a plain count of what it has been given to do."""

import copy
from collections import deque
from dataclasses import dataclass, replace

from modelpool_api import EvictRequest, Pong, WorkerEvent, WorkerState
from modelpool_api.health import PingOutcome
from modelpool_api.wire import MAX_TRANSITIONS
from modelpool_worker.machine import Gauges, Machine


@dataclass
class Clock:
    """Seconds since the beginning; the one clock of a world."""

    seconds: float = 0.0

    def read(self) -> float:
        """Return the time."""
        return self.seconds


@dataclass
class Process:
    """One process. ``open``, ``loaded`` and ``last_used`` are counted apart from the machine, to judge it by."""

    pod_uid: str
    machine: Machine
    clock: Clock
    answers: PingOutcome = PingOutcome.OK
    open: int = 0
    served: int = 0
    loaded: bool = False
    last_used: float = 0.0

    @classmethod
    def started(cls, pod_uid: str, worker_uid: str, boot: str, idle_timeout: float, clock: Clock) -> "Process":
        """Return a process that has just begun to load."""
        machine = Machine(worker_id=worker_uid, boot_id=boot, idle_timeout=idle_timeout, clock=clock.read)
        return cls(pod_uid, machine, clock)

    def copy(self, clock: Clock) -> "Process":
        """Return the same process in another world."""
        twin = replace(self, machine=copy.copy(self.machine), clock=clock)
        # a machine is not made to be copied: what it would share with its twin is its past and its clock
        twin.machine._moves = deque(self.machine._moves, maxlen=MAX_TRANSITIONS)
        twin.machine._clock = clock.read
        return twin

    @property
    def state(self) -> WorkerState:
        """Where its own machine is."""
        return self.machine.state

    def idle_for(self) -> float:
        """Return the seconds since the last request ended or since it was loaded, by the plain count."""
        return self.clock.seconds - self.last_used

    def load(self) -> None:
        """Finish loading."""
        self.machine.fire(WorkerEvent.LOADED, "ModelLoaded")
        self.loaded, self.last_used = True, self.clock.seconds

    def admit(self) -> None:
        """Take a request in."""
        self.machine.admit()
        self.open += 1
        self.served += 1

    def done(self) -> None:
        """Answer a request."""
        self.machine.done()
        self.open -= 1
        self.last_used = self.clock.seconds

    def ping(self) -> tuple[PingOutcome, Pong | None]:
        """Answer a ping, or do not."""
        if self.answers is not PingOutcome.OK:
            return self.answers, None
        return PingOutcome.OK, self.machine.pong(Gauges(), 0.0)

    def evict(self, request: EvictRequest) -> bool:
        """Agree to an eviction, or refuse; only a process that answers can be asked."""
        return self.answers is PingOutcome.OK and self.machine.evict(request)
