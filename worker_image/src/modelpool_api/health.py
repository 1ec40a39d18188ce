"""Judging a worker's health by what its pings brought; counted in tries, never in elapsed time."""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final


class HealthStatus(StrEnum):
    """What the pings of this process say about a worker."""

    UNKNOWN = "Unknown"
    HEALTHY = "Healthy"
    SUSPECT = "Suspect"
    UNHEALTHY = "Unhealthy"


class PingOutcome(StrEnum):
    """How one ping ended. Only ``UNREACHABLE`` can be the network's fault; the others are the worker's own answer."""

    OK = "Ok"
    UNREACHABLE = "Unreachable"
    GARBAGE = "Garbage"
    UNAUTHORIZED = "Unauthorized"
    WRONG_WORKER = "WrongWorker"


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """How often to ping and how many misses in a row mean death (ModelPool ``spec.healthCheck``)."""

    period_seconds: int = 10
    timeout_seconds: int = 5
    failure_threshold: int = 3


@dataclass(frozen=True, slots=True)
class HealthRecord:
    """The pings of one worker process so far. A frozen observer makes no tries, so it condemns nobody."""

    misses: int = 0
    last_outcome: PingOutcome | None = None
    boot_id: str | None = field(default=None, compare=False)

    def after(self, outcome: PingOutcome, boot_id: str | None = None) -> "HealthRecord":
        """Return the record with one more ping: a good one forgets the misses."""
        if outcome is PingOutcome.OK:
            return HealthRecord(0, outcome, boot_id)
        return replace(self, misses=self.misses + 1, last_outcome=outcome)

    def status(self, check: HealthCheck, *, pod_ready: bool) -> HealthStatus:
        """Judge: unreachable although the kubelet calls the pod ready gets three times the threshold."""
        if self.last_outcome is None:
            return HealthStatus.UNKNOWN
        if self.misses == 0:
            return HealthStatus.HEALTHY
        patient = self.last_outcome is PingOutcome.UNREACHABLE and pod_ready
        limit = check.failure_threshold * (3 if patient else 1)
        return HealthStatus.UNHEALTHY if self.misses >= limit else HealthStatus.SUSPECT


NO_PINGS: Final = HealthRecord()
