"""What becomes of a request that no worker can take now."""

from datetime import UTC, datetime, timedelta

import pytest

from modelpool_api import WorkerState
from modelpool_gateway.directory import Worker
from modelpool_gateway.errors import GatewayError
from modelpool_gateway.models import Model, Pause
from modelpool_gateway.outlook import expect

_S = WorkerState
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def worker(state, reason="", *, uid="w", leaving=False, version=1, old=False) -> Worker:
    endpoint = "http://10.0.0.1:8080"
    found = Worker(uid, "team-a", uid, "minilm", state, endpoint, reason, "a sentence", version, leaving=leaving)
    found.owner, found.old = "minilm", old
    return found


def model(name="minilm", *, pause=None, off=False, days=0, fresh=True) -> Model:
    created = NOW - timedelta(days=days)
    return Model(name, "team-a", name, "minilm", "text-embedding", 1, created, off, "t", None, pause, None, fresh)


def pause(seconds):
    return Pause("OOMKilled", "a sentence", None if seconds is None else NOW + timedelta(seconds=seconds))


WAITS = [
    pytest.param([], [model()], "minilm", id="a-cold-model-is-asked-for"),
    pytest.param([worker(_S.SPAWNING)], [model()], "minilm", id="and-asked-for-while-its-worker-comes"),
    pytest.param([worker(_S.LOADING)], [], None, id="a-worker-of-its-own-comes-without"),
    pytest.param([worker(_S.SPAWNING, "WaitingForQuota")], [model()], "minilm", id="room-may-come"),
    pytest.param([worker(_S.FAILED)], [model()], "minilm", id="one-that-failed-has-a-successor"),
    pytest.param([], [model(pause=pause(-1))], "minilm", id="a-pause-that-is-over"),
    pytest.param([], [model(off=True), model("other")], "other", id="another-model-of-the-name"),
    pytest.param([worker(_S.READY, uid="open")], [], None, id="a-breaker-closes-again"),
    pytest.param([worker(_S.SPAWNING, "ExceedsPool"), worker(_S.LOADING, uid="v")], [], None, id="one-of-two-comes"),
    pytest.param([worker(_S.SPAWNING, "ExceedsPool", old=True)], [model()], "minilm", id="what-never-fits-is-replaced"),
    pytest.param([worker(_S.SPAWNING, "ExceedsPool")], [model(fresh=False)], "minilm", id="the-spec-was-just-mended"),
]


@pytest.mark.parametrize(("workers", "models", "asked"), WAITS)
def test_a_request_waits_where_a_worker_may_come(workers, models, asked):
    found = expect(workers, models, frozenset(), NOW)
    assert (found.name if found else None) == asked


FAILS = [
    pytest.param([], [], 404, "model_not_found", True, id="nobody-knows-the-name"),
    pytest.param([worker(_S.FAILED, "ModelLoadFailed")], [], 503, "ModelLoadFailed", True, id="the-worker-failed"),
    pytest.param([worker(_S.EVICTING)], [], 503, "no_worker", False, id="it-goes-and-no-other-comes"),
    pytest.param([worker(_S.SPAWNING, "ExceedsPool")], [model()], 503, "ExceedsPool", True, id="it-can-never-fit"),
    pytest.param(
        [worker(_S.SPAWNING, "ExceedsPool", old=True), worker(_S.SPAWNING, "PoolNotFound", uid="v")],
        *([model()], 503, "PoolNotFound", True),
        id="nor-can-what-replaces-it",
    ),
    pytest.param(
        [worker(_S.SPAWNING, "ExceedsPool")],
        [model("other", fresh=False)],
        503,
        "ExceedsPool",
        True,
        id="not-its-model",
    ),
    pytest.param([worker(_S.SPAWNING, "PoolHeld")], [model()], 503, "PoolHeld", False, id="its-pool-is-held"),
    pytest.param([], [model(off=True)], 503, "switched_off", True, id="switched-off"),
    pytest.param([], [model(pause=pause(None))], 503, "OOMKilled", True, id="only-another-spec-helps"),
    pytest.param([], [model(pause=pause(7))], 503, "OOMKilled", False, id="a-pause-after-a-failure"),
    pytest.param([worker(_S.READY, uid="tried")], [], 503, "no_worker", False, id="the-only-one-was-tried"),
]


@pytest.mark.parametrize(("workers", "models", "status", "code", "permanent"), FAILS)
def test_a_request_hears_at_once_why_it_would_wait_in_vain(workers, models, status, code, permanent):
    with pytest.raises(GatewayError) as caught:
        expect(workers, models, frozenset({"tried"}), NOW)
    error = caught.value
    assert (error.status, error.code) == (status, code)
    assert error.permanent is (permanent and status != 404)
    assert (error.retry_after is not None) is (not permanent)


def test_the_pause_that_is_left_is_when_to_come_again():
    with pytest.raises(GatewayError) as caught:
        expect([], [model(pause=pause(6.2))], frozenset(), NOW)
    assert caught.value.retry_after == 7
