"""From a worker's pong to the moves that ``status`` still lacks.

The worker owns Loading, Ready, Processing, Idle and Evicting while its process lives; the operator copies. Lifecycle
moves are copied one by one. Moves among Ready, Processing and Idle are load: a few of them are copied as they
came, so that a single request can be watched, and many collapse into the shortest way to the present state.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from modelpool_api import FLIP_STATES, Pong, WorkerState, WorkerTransition, shortest_path
from modelpool_operator.api.names import Reason
from modelpool_operator.domain.transitions import Move, is_legal

#: More flips than this in one pong are load, not a story.
_STORY: Final = 4

_S = WorkerState
_REASONS: Final = {
    _S.LOADING: (Reason.CONTAINER_STARTED, "the container runs and loads the model"),
    _S.READY: (Reason.MODEL_LOADED, "the model is loaded and warm"),
    _S.PROCESSING: (Reason.REQUEST_ADMITTED, "at least one request is in flight or queued"),
    _S.IDLE: (Reason.IDLE_TIMEOUT, "unused for the idle timeout"),
    _S.EVICTING: (Reason.POD_TERMINATING, "the worker takes nothing new and finishes what it has"),
}


@dataclass(frozen=True, slots=True)
class Mirrored:
    """Which process and which of its moves ``status`` shows (``status.mirrored``)."""

    boot_id: str = ""
    seq: int = -1


def moves_from_pong(
    state: WorkerState, mirrored: Mirrored, pong: Pong, *, pod_ready: bool, now: datetime
) -> tuple[Move, ...]:
    """Return the moves that bring ``status`` from ``state`` to what the pong says, each legal after the one before.

    Ready is written only when the kubelet calls the pod ready as well. A pong whose state this version does not
    know, or that no legal way leads to, brings nothing: not routed to, not killed.
    """
    told = _untold(mirrored, pong)
    restarted = bool(mirrored.boot_id) and pong.boot_id != mirrored.boot_id
    if pong.state in FLIP_STATES:
        return _to_serving(state, told, pong, pod_ready=pod_ready, restarted=restarted, now=now)
    if pong.state is _S.LOADING and (state is _S.SPAWNING or (restarted and state in FLIP_STATES)):
        return (_move(_S.LOADING, told, now, restarted=restarted),)
    if pong.state is _S.EVICTING and is_legal(state, _S.EVICTING):
        return _to_evicting(state, told, now)
    return ()


def _to_serving(
    state: WorkerState,
    told: Sequence[WorkerTransition],
    pong: Pong,
    *,
    pod_ready: bool,
    restarted: bool,
    now: datetime,
) -> tuple[Move, ...]:
    moves: list[Move] = []
    if state is _S.SPAWNING or (restarted and state in FLIP_STATES):
        moves.append(_move(_S.LOADING, told, now, restarted=restarted))
        state = _S.LOADING
    if state is _S.LOADING:
        if not pod_ready:
            return tuple(moves)
        moves.append(_move(_S.READY, told, now))
        state = _S.READY
        told = _after_ready(told)
    if state in FLIP_STATES:
        moves.extend(_flips(state, told, pong.state, now))
    return tuple(moves)


def _to_evicting(state: WorkerState, told: Sequence[WorkerTransition], now: datetime) -> tuple[Move, ...]:
    """Before Evicting the load group's last state is written, so that the story has no gap."""
    moves: list[Move] = []
    last = next((step for step in reversed(told) if step.to_state is _S.EVICTING), None)
    if state in FLIP_STATES and last is not None and last.from_state in FLIP_STATES:
        moves.extend(_flips(state, told, last.from_state, now))
    moves.append(_move(_S.EVICTING, told, now))
    return tuple(moves)


def _flips(state: WorkerState, told: Sequence[WorkerTransition], goal: WorkerState, now: datetime) -> list[Move]:
    steps = [step for step in told if step.from_state in FLIP_STATES and step.to_state in FLIP_STATES]
    if steps and len(steps) <= _STORY and steps[0].from_state == state and steps[-1].to_state == goal:
        return [_as_told(step, now) for step in steps]
    return [_move(to, told, now) for to in shortest_path(state, goal) or ()]


def _untold(mirrored: Mirrored, pong: Pong) -> list[WorkerTransition]:
    if pong.boot_id != mirrored.boot_id:
        return list(pong.transitions)
    return [step for step in pong.transitions if step.seq > mirrored.seq]


def _after_ready(told: Sequence[WorkerTransition]) -> list[WorkerTransition]:
    for index, step in enumerate(told):
        if step.from_state is _S.LOADING and step.to_state is _S.READY:
            return list(told[index + 1 :])
    return list(told)


def _move(to: WorkerState, told: Iterable[WorkerTransition], now: datetime, *, restarted: bool = False) -> Move:
    """Take reason and time from the worker's latest move to this state, else say what the state means."""
    step = next((step for step in reversed(list(told)) if step.to_state is to), None)
    if step is not None:
        return _as_told(step, now)
    reason, message = _REASONS[to]
    if restarted and to is _S.LOADING:
        return Move(to, Reason.CONTAINER_RESTARTED, "the container was restarted and loads the model again", now)
    return Move(to, reason, message, now)


def _as_told(step: WorkerTransition, now: datetime) -> Move:
    reason, message = _REASONS.get(step.to_state, (Reason.ACCEPTED, ""))
    if step.reason == Reason.REQUESTS_DONE:
        message = "every request is answered"
    return Move(step.to_state, step.reason or str(reason), step.message or message, now - timedelta(seconds=step.age))
