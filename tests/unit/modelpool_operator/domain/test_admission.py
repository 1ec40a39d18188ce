"""Who gets a reservation now, who waits, and for what."""

import pytest

from modelpool_api import WorkerState
from modelpool_operator.domain.admission import MAX_ENTRIES, admit, shrink, waits_for_room
from unit.modelpool_operator.domain.scenes import UID, candidate, charged, pool, worker

_S = WorkerState
DELETED = {"deletionTimestamp": "2026-01-02T03:04:00Z"}


def waiting(name, memory="1Gi", gpus=0, *, age=0.0, priority=0, **spec):
    """A worker in line that is so many seconds old."""
    meta = {"name": name, "uid": name}
    return worker(_S.SPAWNING, since=age, meta=meta, memory=memory, gpus=gpus, priority=priority, **spec)


def holder(name, state=_S.PROCESSING, memory_mib=1024, gpus=0, **what):
    return candidate(name, state, memory_mib, gpus, **{"pending": 1 if state is _S.PROCESSING else 0, **what})


def granted(decided):
    return [each.name for each in decided.grants]


@pytest.mark.parametrize(
    ("budget", "line", "holders", "grants"),
    [
        pytest.param({"memory": "2Gi"}, [waiting("a"), waiting("b")], [], ["a", "b"], id="all-fit"),
        pytest.param(
            {"memory": "1Gi"}, [waiting("young"), waiting("old", age=9)], [], ["old"], id="the-older-one-first"
        ),
        pytest.param(
            {"memory": "1Gi"},
            [waiting("old", age=9), waiting("high", priority=1)],
            [],
            ["high"],
            id="priority-before-age",
        ),
        pytest.param(
            {"memory": "4Gi"},
            [waiting("big", "4Gi", age=9), waiting("small")],
            [holder("x")],
            ["small"],
            id="room-that-is-not-coming-for-the-first-may-be-used",
        ),
        pytest.param(
            {"memory": "4Gi"},
            [waiting("big", "4Gi", age=9), waiting("small")],
            [holder("x", _S.EVICTING)],
            [],
            id="coming-room-is-kept-for-the-first",
        ),
        pytest.param(
            {"memory": "6Gi"},
            [waiting("big", "4Gi", age=9), waiting("small", "2Gi")],
            [holder("x", _S.EVICTING, 3072)],
            ["small"],
            id="room-beyond-what-the-first-needs-may-be-used",
        ),
        pytest.param(
            {"memory": "4Gi", "gpus": 1},
            [waiting("gpu", "1Gi", 1, age=9), waiting("cpu")],
            [holder("x", _S.EVICTING, gpus=1)],
            ["cpu"],
            id="the-first-lacks-a-gpu-so-memory-is-free",
        ),
        pytest.param({"memory": "8Gi", "gpus": 1}, [waiting("a", "1Gi", 2)], [], [], id="more-gpus-than-the-pool-has"),
        pytest.param(
            {"memory": "8Gi", "gpus": 2},
            [waiting("a", "1Gi", 2, age=9), waiting("b", "1Gi", 1, age=8), waiting("c")],
            [],
            ["a", "c"],
            id="two-dimensions",
        ),
        pytest.param(
            {"memory": "1Gi"},
            [waiting("huge", "2Gi", age=9), waiting("small")],
            [],
            ["small"],
            id="one-that-never-fits-holds-nobody-up",
        ),
        pytest.param({"memory": "1Gi"}, [waiting("a")], [holder("x", memory_mib=4096)], [], id="over-budget"),
        pytest.param({"memory": "4Gi", "stopPolicy": "Hold"}, [waiting("a")], [], [], id="held"),
        pytest.param({"memory": "4Gi", "deleting": True}, [waiting("a")], [], [], id="being-deleted"),
    ],
)
def test_grants(budget, line, holders, grants):
    """By priority, then age; what comes back for the first in line is not given away."""
    decided = admit(pool(**budget), line, holders)
    assert granted(decided) == grants
    assert {each.name for each in decided.grants} | set(decided.refusals) == {each.name for each in line}


@pytest.mark.parametrize(
    ("budget", "one", "holders", "reason", "sentence"),
    [
        pytest.param({"memory": "1Gi"}, waiting("a", "2Gi"), [], "ExceedsPool", "needs 2048 MiB", id="never"),
        pytest.param({"memory": "8Gi"}, waiting("a", "1Gi", 9), [], "ExceedsPool", "9 GPUs", id="never-gpus"),
        pytest.param(
            {"memory": "2Gi", "gpus": 0},
            waiting("a", "2Gi"),
            [holder("x")],
            "WaitingForQuota",
            "needs 2048 MiB, pool default has 1024 MiB free of 2048 MiB: 1024 MiB short",
            id="short",
        ),
        pytest.param(
            {"memory": "2Gi"},
            waiting("a", "2Gi"),
            [holder("x", _S.EVICTING)],
            "WaitingForQuota",
            "1024 MiB coming back",
            id="coming",
        ),
        pytest.param(
            {"memory": "2Gi"},
            waiting("a", "2Gi"),
            [holder("x", _S.IDLE)],
            "WaitingForQuota",
            "asked x to go",
            id="asked",
        ),
        pytest.param({"stopPolicy": "Hold"}, waiting("a"), [], "PoolHeld", "admits nothing", id="held"),
        pytest.param(
            {},
            waiting("a", template={"priorityClassName": "top"}),
            [],
            "ConfigError",
            "priorityClassName top is not allowed by pool default; allowed: none",
            id="template",
        ),
    ],
)
def test_whoever_waits_is_told_why(budget, one, holders, reason, sentence):
    found, message = admit(pool(**budget), [one], holders).refusals["a"]
    assert found == reason
    assert sentence in message


def test_only_for_the_first_in_line_somebody_is_asked_to_go():
    line = [waiting("first", "2Gi", age=9), waiting("second", "2Gi", age=5)]
    decided = admit(pool(memory="4Gi"), line, [holder(name, _S.IDLE) for name in "abcd"])
    assert len(decided.victims) == 2
    assert "asked" not in decided.refusals["second"][1]


def test_nobody_is_asked_to_go_where_it_would_not_be_enough():
    decided = admit(pool(memory="4Gi"), [waiting("a", "4Gi")], [holder("idle", _S.IDLE), holder("busy")])
    assert decided.victims == ()


def test_a_pool_of_a_thousand_reservations_is_full_and_says_so():
    holders = [holder(f"w{number}", memory_mib=1) for number in range(MAX_ENTRIES - 1)]
    decided = admit(pool(memory="64Gi"), [waiting("a", age=9), waiting("b")], holders)
    assert granted(decided) == ["a"]
    assert "1000 reservations" in decided.refusals["b"][1]


@pytest.mark.parametrize(
    ("one", "of", "waits"),
    [
        pytest.param(worker(_S.SPAWNING), pool(), True, id="new"),
        pytest.param(worker(_S.SPAWNING), charged(), False, id="charged"),
        pytest.param(worker(_S.SPAWNING, status={"podUID": "p"}), pool(), False, id="had-a-pod"),
        pytest.param(worker(_S.SPAWNING, meta=DELETED), pool(), False, id="deleted"),
        pytest.param(worker(_S.SPAWNING, shutdown=True), pool(), False, id="shutdown"),
        pytest.param(worker(_S.LOADING), pool(), False, id="loading"),
        pytest.param(worker(_S.FAILED), pool(), False, id="failed"),
        pytest.param(worker(None), pool(), False, id="not-accepted-yet"),
    ],
)
def test_who_stands_in_line(one, of, waits):
    assert one.uid == UID
    assert waits_for_room(one, of) is waits


@pytest.mark.parametrize(
    ("holders", "victims"),
    [
        pytest.param([holder("a", _S.IDLE)], [], id="fits"),
        pytest.param([holder("a", _S.IDLE, 1024), holder("b", memory_mib=1024)], ["a"], id="the-idle-one"),
        pytest.param([holder("a"), holder("b")], [], id="nobody-may-go"),
        pytest.param([holder("a", _S.EVICTING), holder("b", _S.IDLE)], [], id="somebody-goes-already"),
        pytest.param(
            [holder("a", _S.IDLE, unused=400), holder("b", _S.IDLE, unused=900), holder("c")],
            ["b", "a"],
            id="part-of-the-way-is-better-than-none",
        ),
    ],
)
def test_a_pool_shrunk_below_its_reservations_evicts_only_who_may_go(holders, victims):
    assert [victim.name for victim in shrink(pool(memory="1Gi"), holders)] == victims
