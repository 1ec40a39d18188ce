"""Making room: a whole set of victims first, or nobody."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpool_api import STATES, WorkerState
from modelpool_operator.domain.objects import NOTHING, Amount
from modelpool_operator.domain.room import plan_room
from unit.modelpool_operator.domain.scenes import candidate

_S = WorkerState
NEED = Amount(2048)


@pytest.mark.parametrize(
    ("need", "free", "workers", "victims", "shortfall"),
    [
        pytest.param(NEED, NEED, [candidate("a")], [], NOTHING, id="there-is-room"),
        pytest.param(NEED, NOTHING, [candidate("a"), candidate("b")], ["a", "b"], NOTHING, id="two-are-needed"),
        pytest.param(NEED, NOTHING, [candidate("a")], [], Amount(1024), id="not-enough-so-nobody"),
        pytest.param(NEED, Amount(1024), [candidate("a"), candidate("b")], ["a"], NOTHING, id="one-is-enough"),
        pytest.param(
            NEED,
            Amount(1024),
            [candidate("ready", _S.READY, unused=9000), candidate("idle", unused=400)],
            ["idle"],
            NOTHING,
            id="idle-before-ready",
        ),
        pytest.param(
            NEED,
            Amount(1024),
            [candidate("a", unused=400), candidate("b", unused=900)],
            ["b"],
            NOTHING,
            id="least-recently-used-first",
        ),
        pytest.param(
            NEED,
            NOTHING,
            [candidate("small", unused=900), candidate("big", memory_mib=2048, unused=400)],
            ["big"],
            NOTHING,
            id="an-early-victim-that-became-needless-stays",
        ),
        pytest.param(
            NEED, NOTHING, [candidate("going", _S.EVICTING, 2048), candidate("a")], [], NOTHING, id="enough-is-coming"
        ),
        pytest.param(
            NEED,
            NOTHING,
            [candidate("going", _S.FAILED, 1024), candidate("a"), candidate("b")],
            ["a"],
            NOTHING,
            id="some-is-coming",
        ),
        pytest.param(
            Amount(1024, 2),
            Amount(1024),
            [candidate("cpu", gpus=0, unused=9000), candidate("gpu", gpus=2)],
            ["gpu"],
            NOTHING,
            id="only-who-helps-goes",
        ),
        pytest.param(
            Amount(1024, 2), NOTHING, [candidate("cpu", memory_mib=4096)], [], Amount(0, 2), id="gpus-are-missing"
        ),
    ],
)
def test_plan_room(need, free, workers, victims, shortfall):
    plan = plan_room(need, free, workers)
    assert [victim.name for victim in plan.victims] == victims
    assert plan.shortfall == shortfall
    assert plan.feasible is (shortfall == NOTHING)


@pytest.mark.parametrize(
    "holder",
    [
        pytest.param(candidate("x", pinned=True), id="pinned"),
        pytest.param(candidate("x", young=True), id="young"),
        pytest.param(candidate("x", pending=1), id="pending"),
        pytest.param(candidate("x", _S.PROCESSING, pending=1), id="processing"),
        pytest.param(candidate("x", _S.LOADING, unused=None), id="loading"),
        pytest.param(candidate("x", _S.SPAWNING, unused=None), id="spawning"),
        pytest.param(candidate("x", _S.READY, unused=299), id="ready-not-idle-long-enough"),
        pytest.param(candidate("x", priority=1), id="of-higher-priority"),
        pytest.param(candidate("x", _S.IDLE, unused=None), id="never-heard-of"),
        pytest.param(candidate("x", _S.UNKNOWN), id="state-of-a-newer-version"),
    ],
)
def test_never_a_victim(holder):
    plan = plan_room(Amount(1024), NOTHING, [holder])
    assert plan.victims == ()
    assert plan.shortfall == Amount(1024)


def test_a_worker_of_lower_priority_goes_for_one_of_higher():
    assert plan_room(Amount(1024), NOTHING, [candidate("x", priority=1)], priority=1).feasible


AMOUNTS = st.builds(Amount, st.integers(0, 8), st.integers(0, 2))
HOLDERS = st.lists(
    st.tuples(st.sampled_from(STATES), st.integers(0, 6), st.integers(0, 2), st.integers(0, 900), st.booleans()),
    max_size=8,
)


@given(AMOUNTS, AMOUNTS, HOLDERS)
@settings(max_examples=300, deadline=None, database=None, print_blob=True)
def test_victims_are_enough_all_needed_and_allowed_or_there_are_none(need, free, holders):
    workers = [
        candidate(f"w{number}", state, memory, gpus, unused=unused, pinned=pinned)
        for number, (state, memory, gpus, unused, pinned) in enumerate(holders)
    ]
    plan = plan_room(need, free, workers)
    room = free + plan.coming
    for victim in plan.victims:
        assert victim.may_go(0)
        room += victim.amount
    if plan.feasible:
        assert need.fits(room)
        for victim in plan.victims:
            assert not need.fits(room - victim.amount)
    else:
        assert plan.victims == ()
        best = room
        for worker in workers:
            if worker.may_go(0):
                best += worker.amount
        assert not need.fits(best)
