"""The rules that hold for one worker: its own where it has some, else its pool's."""

from dataclasses import dataclass

from modelpool_api import HealthCheck
from modelpool_operator.api.modelpool import ModelPoolSpec
from modelpool_operator.api.modelworker import ModelWorkerSpec


@dataclass(frozen=True, slots=True)
class Rules:
    """Times in seconds."""

    idle_timeout: float
    evict_after: float
    min_residency: float
    load_deadline: float
    schedule_deadline: float
    drain_timeout: int
    restart_limit: int
    restart_window: float
    failed_retention: float
    health_check: HealthCheck


def rules_for(worker: ModelWorkerSpec, pool: ModelPoolSpec) -> Rules:
    """Combine the two specs; a worker that sets nothing follows its pool."""

    def own(value: int | None, default: int) -> int:
        return default if value is None else value

    return Rules(
        idle_timeout=own(worker.idle_timeout_seconds, pool.idle_timeout_seconds),
        evict_after=own(worker.evict_after_seconds, pool.evict_after_seconds),
        min_residency=pool.min_residency_seconds,
        load_deadline=own(worker.load_deadline_seconds, pool.load_deadline_seconds),
        schedule_deadline=own(worker.schedule_deadline_seconds, pool.schedule_deadline_seconds),
        drain_timeout=own(worker.drain_timeout_seconds, pool.drain_timeout_seconds),
        restart_limit=own(worker.restart_limit, pool.restart_limit),
        restart_window=pool.restart_window_seconds,
        failed_retention=pool.failed_retention_seconds,
        health_check=HealthCheck(
            period_seconds=pool.health_check.period_seconds,
            timeout_seconds=pool.health_check.timeout_seconds,
            failure_threshold=pool.health_check.failure_threshold,
        ),
    )
