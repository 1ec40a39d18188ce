"""The lifecycle of a worker, kept once.

Two rules for this file. Everything that decides which move is legal lives here. And nothing here knows which
of the two writers (worker process, operator) is asking: the table is the same for both.

The CRD's enum, its CEL rules, the printer column, the metric labels and the README's diagram are derived from
``TRANSITIONS``; none of them is typed a second time.
"""

from collections import deque
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class WorkerState(StrEnum):
    """Where a worker is in its life. ``UNKNOWN`` is never written: it is what a newer version's state parses to."""

    SPAWNING = "Spawning"
    LOADING = "Loading"
    READY = "Ready"
    PROCESSING = "Processing"
    IDLE = "Idle"
    EVICTING = "Evicting"
    FAILED = "Failed"
    DEAD = "Dead"
    UNKNOWN = "Unknown"


class WorkerEvent(StrEnum):
    """What happened to a worker. Events are facts; the table says where each one leads."""

    CONTAINER_STARTED = "ContainerStarted"
    LOADED = "Loaded"
    REQUEST_ADMITTED = "RequestAdmitted"
    REQUESTS_DONE = "RequestsDone"
    IDLE_TIMEOUT = "IdleTimeout"
    CONTAINER_RESTARTED = "ContainerRestarted"
    FAIL = "Fail"
    EVICT = "Evict"
    POD_GONE = "PodGone"
    RETENTION_OVER = "RetentionOver"


_S, _E = WorkerState, WorkerEvent

_SERVING: Final[Mapping[WorkerEvent, WorkerState]] = {
    _E.CONTAINER_RESTARTED: _S.LOADING,
    _E.FAIL: _S.FAILED,
    _E.EVICT: _S.EVICTING,
    _E.POD_GONE: _S.DEAD,
}

TRANSITIONS: Final[Mapping[WorkerState, Mapping[WorkerEvent, WorkerState]]] = MappingProxyType(
    {
        _S.SPAWNING: {
            _E.CONTAINER_STARTED: _S.LOADING,
            _E.FAIL: _S.FAILED,
            _E.EVICT: _S.EVICTING,
            _E.POD_GONE: _S.FAILED,
        },
        _S.LOADING: {
            _E.LOADED: _S.READY,
            _E.FAIL: _S.FAILED,
            _E.EVICT: _S.EVICTING,
            _E.POD_GONE: _S.FAILED,
        },
        _S.READY: {_E.REQUEST_ADMITTED: _S.PROCESSING, _E.IDLE_TIMEOUT: _S.IDLE, **_SERVING},
        _S.PROCESSING: {_E.REQUESTS_DONE: _S.READY, **_SERVING},
        _S.IDLE: {_E.REQUEST_ADMITTED: _S.PROCESSING, **_SERVING},
        _S.EVICTING: {_E.POD_GONE: _S.DEAD},
        _S.FAILED: {_E.RETENTION_OVER: _S.DEAD},
        _S.DEAD: {},
    }
)

STATES: Final[tuple[WorkerState, ...]] = tuple(TRANSITIONS)
INITIAL_STATE: Final = _S.SPAWNING

#: States whose moves among themselves are load, not lifecycle: mirrored coalesced and without an Event.
FLIP_STATES: Final = frozenset({_S.READY, _S.PROCESSING, _S.IDLE})
ROUTABLE_STATES: Final = FLIP_STATES
EVICTABLE_STATES: Final = frozenset({_S.READY, _S.IDLE})
TERMINAL_STATES: Final = frozenset(state for state, moves in TRANSITIONS.items() if not moves)
#: From these a worker may still serve some day; Evicting, Failed and Dead never come back.
LIVE_STATES: Final = frozenset(state for state, moves in TRANSITIONS.items() if _E.EVICT in moves)


class IllegalTransitionError(ValueError):
    """The table has no such move. Nothing was changed."""

    def __init__(self, state: WorkerState, event: WorkerEvent) -> None:
        legal = ", ".join(TRANSITIONS.get(state, {})) or "none, the state is terminal"
        super().__init__(f"a worker in state {state} takes no event {event}; expected one of: {legal}")
        self.state = state
        self.event = event


def next_state(state: WorkerState, event: WorkerEvent) -> WorkerState:
    """Return where ``event`` leads from ``state``; raise ``IllegalTransitionError`` where the table has no move."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise IllegalTransitionError(state, event) from None


def parse_state(text: str | None) -> WorkerState:
    """Read a state that another version may have written; one that is not known here becomes ``UNKNOWN``."""
    try:
        return WorkerState(text or "")
    except ValueError:
        return _S.UNKNOWN


def allowed_moves() -> dict[WorkerState, frozenset[WorkerState]]:
    """Return the table without its events: state → the states one legal move away."""
    return {state: frozenset(moves.values()) for state, moves in TRANSITIONS.items()}


def shortest_path(start: WorkerState, goal: WorkerState) -> tuple[WorkerState, ...] | None:
    """Return the states after ``start`` on a shortest legal way to ``goal``; ``()`` if equal, None if there is none.

    A mirror that saw only the ends of a quick life uses it to write every step:
    ``shortest_path(SPAWNING, READY) == (LOADING, READY)``.
    """
    came_from: dict[WorkerState, WorkerState] = {}
    queue = deque([start])
    while queue:
        here = queue.popleft()
        if here == goal:
            path: list[WorkerState] = []
            while here != start:
                path.append(here)
                here = came_from[here]
            return tuple(reversed(path))
        # in the table's order of events: of two ways as short, Idle → Ready goes by a request, not by a restart
        for there in TRANSITIONS.get(here, {}).values():
            if there not in came_from and there != start:
                came_from[there] = here
                queue.append(there)
    return None
