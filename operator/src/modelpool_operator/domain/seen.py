"""All that a decision about one worker may depend on, and what follows from it directly."""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from modelpool_api import HealthStatus, Pong
from modelpool_api.health import NO_PINGS, HealthRecord
from modelpool_operator.api.modelpool import ModelPoolSpec
from modelpool_operator.api.names import Reason
from modelpool_operator.domain import failures
from modelpool_operator.domain.failures import Failure
from modelpool_operator.domain.objects import Entry, PoolView, WorkerView
from modelpool_operator.domain.podview import Container, PodView
from modelpool_operator.domain.rules import Rules, rules_for

#: The house rules of a worker whose pool is gone: the defaults.
_NO_POOL: Final = ModelPoolSpec(memory="1Mi")


@dataclass(frozen=True)
class Seen:
    """All that a decision about one worker may depend on."""

    worker: WorkerView
    pool: PoolView | None = None
    #: why the pool makes no reservation; None while it has not said
    quota: tuple[Reason, str] | None = None
    pod: PodView | None = None
    pong: Pong | None = None
    health: HealthRecord = NO_PINGS
    #: this operator itself seems cut off from the workers: nobody is condemned
    cut_off: bool = False
    #: the pool wants this worker's room, if it can be had without harm
    room_wanted: Reason | None = None
    #: its Model wants it to stay: neither idleness nor the room of others ends it
    kept: bool = False
    #: its Model has no use for it any more: it goes as soon as it has nothing to do
    dismissed: Reason | None = None
    #: seconds that it stays after its last use, as a request has asked; below 0: as long as may be
    keep_alive: int | None = None
    #: it refused to be evicted even by force
    deaf: bool = False
    #: a Service of its name is there and belongs to somebody else
    service_taken: bool = False
    #: a Service of its name is there and is its own
    service_made: bool = False

    @cached_property
    def rules(self) -> Rules:
        """The worker's rules, with its pool's behind them."""
        return rules_for(self.worker.spec, self.pool.spec if self.pool else _NO_POOL)

    @property
    def charged_pod(self) -> PodView | None:
        """The worker's pod, but for a gated one that was made anew by somebody who had not heard that it had one."""
        charged = self.worker.status.get("podUID")
        anew = self.pod is not None and charged and self.pod.uid != charged and self.pod.gated
        return None if anew else self.pod

    @property
    def entry(self) -> Entry | None:
        """The worker's reservation."""
        return self.pool.ledger.get(self.worker.uid) if self.pool else None

    @property
    def health_status(self) -> HealthStatus:
        """What the pings say."""
        return self.health.status(self.rules.health_check, pod_ready=self.pod is not None and self.pod.ready)

    @property
    def reachable(self) -> bool:
        """Whether the process answered the last ping, so that it can be asked."""
        return self.pong is not None and self.health.misses == 0 and not self.deaf

    @property
    def container(self) -> Container | None:
        """The worker's container, where there is a pod that has one."""
        return self.pod.container if self.pod else None

    @property
    def refusal(self) -> tuple[Reason, str] | None:
        """Why there is no reservation; None while the pool has not decided: that is not worth a write."""
        if self.pool is None:
            where = f"namespace {self.worker.namespace}"
            return Reason.POOL_NOT_FOUND, f"there is no ModelPool {self.worker.spec.pool} in {where}"
        return self.quota

    @property
    def forgiven(self) -> int:
        """Restarts that do not count any more."""
        return int(self.worker.status.get("restartsForgiven") or 0)

    @property
    def failure(self) -> Failure | None:
        """Why the ends of the container mean that the worker has failed."""
        return failures.container_failure(self.container, self.forgiven, self.rules) if self.container else None

    @property
    def _unseen_end(self) -> bool:
        shown = int(self.worker.status.get("restarts") or 0)
        return self.container is not None and self.container.failures > shown

    @property
    def restarted(self) -> bool:
        """Whether the process that status calls serving is no more, and its successor has not said so itself."""
        return self._unseen_end and (self.pong is None or self.pong.boot_id == self.worker.mirrored.boot_id)

    @property
    def new_end(self) -> Failure | None:
        """The container's latest end, where status does not show it yet."""
        last = self.container.last if self.container else None
        return failures.describe_end(last) if last is not None and self._unseen_end else None

    @property
    def back_off(self) -> tuple[str, str] | None:
        """What is to be read while the container waits between two tries."""
        container = self.container
        if container is None or container.last is None:
            return None
        end = failures.describe_end(container.last)
        ends = f"end {container.failures - self.forgiven} of at most {self.rules.restart_limit}"
        return str(end.reason), f"{end.message} ({ends})"
