"""The contract between worker, operator and gateway: states, capabilities, wire models.

Imports the standard library and pydantic only, so that every part can afford it.
"""

from modelpool_api.capability import Capability
from modelpool_api.handle import WorkerHandle
from modelpool_api.health import HealthCheck, HealthStatus
from modelpool_api.lifecycle import (
    EVICTABLE_STATES,
    FLIP_STATES,
    INITIAL_STATE,
    LIVE_STATES,
    ROUTABLE_STATES,
    STATES,
    TERMINAL_STATES,
    TRANSITIONS,
    IllegalTransitionError,
    WorkerEvent,
    WorkerState,
    allowed_moves,
    next_state,
    parse_state,
    shortest_path,
)
from modelpool_api.wire import EvictRequest, MemoryReport, Pong, WorkerTransition

__all__ = [
    "EVICTABLE_STATES",
    "FLIP_STATES",
    "INITIAL_STATE",
    "LIVE_STATES",
    "ROUTABLE_STATES",
    "STATES",
    "TERMINAL_STATES",
    "TRANSITIONS",
    "Capability",
    "EvictRequest",
    "HealthCheck",
    "HealthStatus",
    "IllegalTransitionError",
    "MemoryReport",
    "Pong",
    "WorkerEvent",
    "WorkerHandle",
    "WorkerState",
    "WorkerTransition",
    "allowed_moves",
    "next_state",
    "parse_state",
    "shortest_path",
]
