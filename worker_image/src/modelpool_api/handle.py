"""A worker as its last pong shows it, with the two questions that routers and evictors ask."""

from dataclasses import dataclass

from modelpool_api.lifecycle import EVICTABLE_STATES, ROUTABLE_STATES, WorkerState
from modelpool_api.wire import Pong


@dataclass(frozen=True, slots=True)
class WorkerHandle:
    """What is known of a worker. It is a hint: eviction is decided by the worker itself, in one step."""

    worker_id: str
    boot_id: str
    state: WorkerState
    pending_requests: int
    queue_depth: int
    unused_for: float | None

    @classmethod
    def from_pong(cls, pong: Pong) -> "WorkerHandle":
        """Take the handle's fields from a pong."""
        return cls(
            worker_id=pong.worker_id,
            boot_id=pong.boot_id,
            state=pong.state,
            pending_requests=pong.pending_requests,
            queue_depth=pong.queue_depth,
            unused_for=pong.unused_for,
        )

    @property
    def can_accept_requests(self) -> bool:
        """Whether the worker takes a new request: Ready, Processing or Idle."""
        return self.state in ROUTABLE_STATES

    def is_evictable(self, idle_seconds: float) -> bool:
        """Whether it is worth asking the worker to go: Ready or Idle, nothing pending, unused for ``idle_seconds``."""
        return (
            self.state in EVICTABLE_STATES
            and self.pending_requests == 0
            and self.unused_for is not None
            and self.unused_for >= idle_seconds
        )
