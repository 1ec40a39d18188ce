"""When a worker that nobody uses is asked to go: for idleness, for room, or because its Model has no use for it."""

import pytest

from modelpool_api import WorkerState
from modelpool_operator.api.names import Reason
from modelpool_operator.domain.idle_eviction import idle_eviction
from modelpool_operator.domain.plan import AskEvict
from unit.modelpool_operator.domain.scenes import NOW, charged, pong, seen, worker

_S = WorkerState
TIMES = {"idleTimeoutSeconds": 30, "evictAfterSeconds": 100, "minResidencySeconds": 60}


def asked(*, unused: float, ready_for: float = 1000.0, eviction: str = "Auto", pending: int = 0, **what):
    """What the worker is asked, and the seconds after which it is looked at again."""
    of = worker(_S.IDLE, since=ready_for, eviction=eviction)
    state = _S.PROCESSING if pending else _S.IDLE
    view = seen(
        of, pool=charged(**TIMES), pong=pong(state, unused=None if pending else unused, pending=pending), **what
    )
    actions, due = idle_eviction(view, NOW)
    return actions, [round((moment - NOW).total_seconds(), 3) for moment in due]


def ask(reason: Reason, unused_for: float) -> tuple[AskEvict, ...]:
    return (AskEvict(reason, unused_for=unused_for),)


@pytest.mark.parametrize(
    ("what", "actions", "due"),
    [
        pytest.param({"unused": 100}, ask(Reason.IDLE_EVICTION, 100), [1], id="unused-for-long-enough"),
        pytest.param({"unused": 70}, (), [30], id="not-yet"),
        pytest.param({"unused": 100, "ready_for": 50}, (), [10], id="young"),
        pytest.param({"unused": 100, "pending": 1}, (), [], id="at-work"),
        pytest.param({"unused": 100, "eviction": "Never"}, (), [], id="never"),
        pytest.param({"unused": 100, "kept": True}, (), [], id="its-model-keeps-it"),
        pytest.param(
            {"unused": 30, "room_wanted": Reason.ROOM_EVICTION},
            ask(Reason.ROOM_EVICTION, 30),
            [1],
            id="its-room-is-wanted-and-it-is-idle",
        ),
        pytest.param({"unused": 10, "room_wanted": Reason.ROOM_EVICTION}, (), [20], id="its-room-is-wanted-too-soon"),
        pytest.param(
            {"unused": 100, "kept": True, "room_wanted": Reason.ROOM_EVICTION}, (), [], id="kept-from-those-in-need"
        ),
        pytest.param({"unused": 5, "keep_alive": 5}, ask(Reason.IDLE_EVICTION, 5), [1], id="a-request-said-how-long"),
        pytest.param({"unused": 100, "keep_alive": 300}, (), [200], id="a-request-said-longer"),
        pytest.param({"unused": 0, "keep_alive": 0}, ask(Reason.IDLE_EVICTION, 0), [1], id="let-go-after-this"),
        pytest.param({"unused": 0, "keep_alive": 0, "ready_for": 50}, (), [10], id="let-go-but-not-in-haste"),
        pytest.param({"unused": 9999, "keep_alive": -1}, (), [], id="pinned-by-a-request"),
        pytest.param(
            {"unused": 30, "keep_alive": -1, "room_wanted": Reason.ROOM_EVICTION},
            ask(Reason.ROOM_EVICTION, 30),
            [1],
            id="pinned-by-a-request-while-that-is-allowed",
        ),
        pytest.param({"unused": 0, "dismissed": Reason.REPLACED}, ask(Reason.REPLACED, 0), [1], id="replaced"),
        pytest.param(
            {"unused": 0, "ready_for": 1, "kept": True, "eviction": "Never", "dismissed": Reason.SCALED_DOWN},
            ask(Reason.SCALED_DOWN, 0),
            [1],
            id="too-many-however-young-or-pinned",
        ),
        pytest.param({"unused": 0, "pending": 1, "dismissed": Reason.REPLACED}, (), [], id="replaced-once-it-is-done"),
    ],
)
def test_who_is_asked_what_and_when(what, actions, due):
    assert asked(**what) == (actions, due)


def test_a_worker_that_does_not_answer_is_not_asked():
    assert idle_eviction(seen(worker(_S.IDLE), pool=charged(**TIMES), dismissed=Reason.REPLACED), NOW) == ((), ())
