"""From a pong to the moves that status still lacks."""

from datetime import timedelta

import pytest

from modelpool_api import WorkerState
from modelpool_operator.domain.mirror import Mirrored, moves_from_pong
from unit.modelpool_operator.domain.scenes import BOOT, NOW, pong

_S = WorkerState
LOADED = (_S.LOADING, _S.READY)
BUSY, DONE = (_S.READY, _S.PROCESSING), (_S.PROCESSING, _S.READY)
UNUSED, USED = (_S.READY, _S.IDLE), (_S.IDLE, _S.PROCESSING)
SEEN = Mirrored(BOOT, 1)
NEVER = Mirrored()


def moves(state, mirrored, told, *, pod_ready=True):
    return [str(move.to) for move in moves_from_pong(state, mirrored, told, pod_ready=pod_ready, now=NOW)]


@pytest.mark.parametrize(
    ("state", "mirrored", "told", "expected"),
    [
        pytest.param(_S.LOADING, NEVER, pong(_S.READY, LOADED), "Ready", id="loaded"),
        pytest.param(_S.SPAWNING, NEVER, pong(_S.READY, LOADED), "Loading Ready", id="quicker-than-we-looked"),
        pytest.param(_S.SPAWNING, NEVER, pong(_S.LOADING, seq=0), "Loading", id="loads"),
        pytest.param(_S.LOADING, NEVER, pong(_S.LOADING, seq=0), "", id="still-loads"),
        pytest.param(
            _S.LOADING,
            NEVER,
            pong(_S.READY, LOADED, BUSY, DONE, seq=3),
            "Ready Processing Ready",
            id="a-request-before-we-looked",
        ),
        pytest.param(
            _S.READY, SEEN, pong(_S.READY, BUSY, DONE, seq=3), "Processing Ready", id="one-request-is-a-story"
        ),
        pytest.param(
            _S.IDLE,
            SEEN,
            pong(_S.IDLE, USED, DONE, UNUSED, seq=4),
            "Processing Ready Idle",
            id="a-whole-round-is-a-story",
        ),
        pytest.param(_S.READY, SEEN, pong(_S.READY, *[BUSY, DONE] * 5, seq=11), "", id="many-are-load"),
        pytest.param(
            _S.READY, SEEN, pong(_S.PROCESSING, *[BUSY, DONE] * 5, BUSY, seq=12), "Processing", id="load-ends-busy"
        ),
        pytest.param(
            _S.PROCESSING,
            SEEN,
            pong(_S.IDLE, *[DONE, BUSY] * 4, DONE, UNUSED, seq=11),
            "Ready Idle",
            id="load-then-idle-by-the-shortest-way",
        ),
        pytest.param(_S.READY, Mirrored(BOOT, 3), pong(_S.READY, BUSY, DONE, seq=3), "", id="told-already"),
        pytest.param(_S.READY, SEEN, pong(_S.LOADING, boot="boot-2", seq=0), "Loading", id="restarted"),
        pytest.param(
            _S.PROCESSING, SEEN, pong(_S.READY, LOADED, boot="boot-2"), "Loading Ready", id="restarted-and-loaded"
        ),
        pytest.param(
            _S.READY,
            SEEN,
            pong(_S.EVICTING, BUSY, (_S.PROCESSING, _S.EVICTING), seq=3),
            "Processing Evicting",
            id="evicted-while-busy-has-no-gap",
        ),
        pytest.param(
            _S.READY,
            SEEN,
            pong(_S.EVICTING, UNUSED, (_S.IDLE, _S.EVICTING), seq=3),
            "Idle Evicting",
            id="evicted-when-idle",
        ),
        pytest.param(
            _S.PROCESSING,
            SEEN,
            pong(_S.EVICTING, *[DONE, BUSY] * 4, DONE, (_S.READY, _S.EVICTING), seq=11),
            "Ready Evicting",
            id="evicted-after-load",
        ),
        pytest.param(
            _S.LOADING, NEVER, pong(_S.EVICTING, (_S.LOADING, _S.EVICTING)), "Evicting", id="evicted-while-loading"
        ),
        pytest.param(_S.EVICTING, SEEN, pong(_S.EVICTING, seq=2), "", id="evicting-already"),
        pytest.param(_S.EVICTING, SEEN, pong(_S.READY), "", id="no-way-back-from-evicting"),
        pytest.param(_S.FAILED, SEEN, pong(_S.READY), "", id="no-way-back-from-failed"),
        pytest.param(_S.READY, SEEN, pong(_S.UNKNOWN, seq=2), "", id="state-of-a-newer-version"),
        pytest.param(_S.READY, SEEN, pong(_S.LOADING, seq=2), "", id="loading-of-the-same-process-is-nonsense"),
    ],
)
def test_moves(state, mirrored, told, expected):
    """A few flips are copied as they came, many collapse into the shortest way; each move is legal after the last."""
    assert " ".join(moves(state, mirrored, told)) == expected


@pytest.mark.parametrize(
    ("state", "expected"), [(_S.LOADING, []), (_S.SPAWNING, ["Loading"]), (_S.READY, ["Processing"])], ids=str
)
def test_ready_waits_for_the_kubelet_but_a_serving_worker_is_not_held_up(state, expected):
    told = pong(_S.PROCESSING, LOADED, BUSY, seq=2)
    assert moves(state, SEEN if state is _S.READY else NEVER, told, pod_ready=False) == expected


def test_reason_and_time_are_the_workers_own():
    (move,) = moves_from_pong(_S.LOADING, NEVER, pong(_S.READY, LOADED, age=2.5), pod_ready=True, now=NOW)
    assert (move.reason, move.at) == ("StepReady", NOW - timedelta(seconds=2.5))


def test_where_the_worker_says_nothing_of_a_move_the_state_speaks_for_itself():
    (move,) = moves_from_pong(_S.LOADING, NEVER, pong(_S.READY, seq=40), pod_ready=True, now=NOW)
    assert (move.reason, move.at) == ("ModelLoaded", NOW)


def test_a_restart_is_named_as_one():
    (move,) = moves_from_pong(_S.READY, SEEN, pong(_S.LOADING, boot="b", seq=0), pod_ready=False, now=NOW)
    assert move.reason == "ContainerRestarted"
