"""A Model's size: what is wanted, made, let go and kept."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpool_api import STATES, WorkerState
from modelpool_operator.domain.scaling import BackOff, Failed, Member, Scale, count_failures, desired, plan_scale

_S = WorkerState
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MOST = Scale(max_replicas=4, target_pending=8)


def member(name: str, state: WorkerState = _S.READY, *, template: str = "new", age: float = 100, **more) -> Member:
    return Member(f"uid-{name}", name, state, template, NOW - timedelta(seconds=age), **more)


def waiting(name: str, **more) -> Member:
    return member(name, _S.SPAWNING, charged=False, **more)


def plan(scale, members=(), failed=(), *, demand=False, seconds=0.0):
    back_off = count_failures(None, "new", failed, proven=None)
    return plan_scale(scale, "new", list(members), back_off, NOW + timedelta(seconds=seconds), demand=demand)


def failure(reason="OOMKilled", *, ago=0.0, template="new", uid="one") -> Failed:
    return Failed(uid, template, reason, "a sentence", NOW - timedelta(seconds=ago))


@pytest.mark.parametrize(
    ("scale", "pending", "demand", "count"),
    [
        pytest.param(Scale(), [], False, 0, id="nobody-asks"),
        pytest.param(Scale(), [], True, 1, id="demand"),
        pytest.param(Scale(min_replicas=2, max_replicas=4), [], False, 2, id="least"),
        pytest.param(Scale(replicas=3, max_replicas=4), [], False, 3, id="scaled-by-somebody"),
        pytest.param(Scale(replicas=9, max_replicas=4), [], False, 4, id="not-beyond-the-most"),
        pytest.param(Scale(min_replicas=1, max_replicas=0), [], True, 0, id="the-most-is-none"),
        pytest.param(MOST, [8], False, 1, id="one-has-enough-to-do"),
        pytest.param(MOST, [9], False, 2, id="one-has-too-much"),
        pytest.param(MOST, [8, 8, 1], False, 3, id="pending-is-summed"),
        pytest.param(MOST, [500], False, 4, id="a-rush-up-to-the-most"),
    ],
)
def test_the_size_is_the_largest_of_all_wishes_within_the_bounds(scale, pending, demand, count):
    members = [member(f"m{number}", _S.PROCESSING, pending=each) for number, each in enumerate(pending)]
    assert desired(scale, members, demand=demand) == count


def test_what_is_missing_is_made_and_what_is_on_its_way_counts():
    scale = Scale(min_replicas=3, max_replicas=4)
    assert plan(scale).create == 3
    assert plan(scale, [waiting("a"), member("b", _S.LOADING), member("c")]).create == 0


@pytest.mark.parametrize("state", [_S.EVICTING, _S.FAILED, _S.DEAD, _S.UNKNOWN])
def test_one_that_goes_or_is_gone_counts_as_gone(state):
    assert plan(Scale(min_replicas=1), [member("a", state)]).create == 1


def test_one_that_was_told_to_stop_counts_as_gone():
    assert plan(Scale(min_replicas=1), [member("a", leaving=True)]).create == 1


def test_a_thousand_who_ask_for_a_cold_model_want_one_worker():
    first = plan(Scale(max_replicas=4), demand=True)
    assert (first.desired, first.create) == (1, 1)
    assert plan(Scale(max_replicas=4), [waiting("a")], demand=True).create == 0


def test_those_who_work_are_never_told_to_go():
    busy = [member(f"m{number}", _S.PROCESSING, pending=1) for number in range(4)]
    assert plan(Scale(max_replicas=1), busy).let_go == ()


def test_one_that_only_waits_is_let_go_when_nobody_asks_any_more():
    assert plan(Scale(), [waiting("a")]).let_go == ("a",)
    assert plan(Scale(), [waiting("a")], demand=True).let_go == ()
    assert plan(Scale(replicas=1, max_replicas=4), [member("a"), waiting("b", age=9), waiting("c", age=8)]).let_go == (
        "c",
        "b",
    )


def test_what_is_too_much_and_at_rest_goes_by_its_idle_time_unless_it_never_would():
    resting = [member("a", _S.IDLE, unused_for=50.0), member("b", unused_for=5.0), member("c", _S.LOADING)]
    assert plan(Scale(min_replicas=1, max_replicas=4), resting).let_go == ()
    assert plan(Scale(min_replicas=1, max_replicas=4, pinned=True), resting).let_go == ("a", "b")


def test_the_floor_protects_the_most_recently_used_who_serve():
    members = [member("a", unused_for=90.0), member("b", _S.IDLE, unused_for=10.0), member("c", _S.LOADING)]
    assert plan(Scale(min_replicas=1, max_replicas=4), members).keep == {"uid-b"}
    assert plan(Scale(min_replicas=2, max_replicas=4), members).keep == {"uid-a", "uid-b"}
    assert plan(Scale(max_replicas=4), members).keep == frozenset()


def test_fresh_demand_keeps_one_from_eviction():
    """Else it could go in the instant in which it becomes Ready for somebody who waits."""
    assert plan(Scale(), [member("a", unused_for=900.0)], demand=True).keep == {"uid-a"}


ROLLING = [
    pytest.param([member("o", template="old")], 1, (), id="one-more-for-the-time-of-the-change"),
    pytest.param([member("o", template="old"), member("n", _S.LOADING)], 0, (), id="until-it-serves"),
    pytest.param([member("o", template="old"), member("n")], 0, ("o",), id="then-the-old-one-goes"),
    pytest.param([member("o", _S.PROCESSING, template="old", pending=1), member("n")], 0, (), id="unless-it-works"),
    pytest.param([member("o", template="old"), waiting("n")], 0, ("o",), id="without-room-it-goes-first"),
    pytest.param([waiting("o", template="old")], 1, ("o",), id="who-only-waits-is-replaced-at-once"),
    pytest.param([member("o", _S.LOADING, template="old")], 1, (), id="who-loads-may-end-it"),
]


@pytest.mark.parametrize(("members", "create", "let_go"), ROLLING)
def test_a_changed_template_replaces_one_after_the_other(members, create, let_go):
    found = plan(Scale(min_replicas=1, max_replicas=4), members)
    assert (found.create, found.let_go) == (create, let_go)


def test_idle_old_ones_that_nobody_needs_go_at_once():
    old = [member(name, _S.IDLE, template="old", unused_for=seconds) for name, seconds in (("a", 9.0), ("b", 99.0))]
    found = plan(Scale(max_replicas=4), old)
    assert (found.create, found.let_go) == (0, ("b", "a"))


@pytest.mark.parametrize(
    ("failures", "pause"), [(1, 10), (2, 20), (3, 40), (5, 160), (6, 300), (30, 300)], ids=lambda value: str(value)
)
def test_each_failure_doubles_the_pause_up_to_five_minutes(failures, pause):
    failed = [failure(ago=number) for number in range(failures)]
    scale = Scale(min_replicas=1)
    early = plan(scale, failed=failed, seconds=pause - 1)
    assert (early.create, early.held) == (0, True)
    assert count_failures(None, "new", failed, proven=None).retry_at == NOW + timedelta(seconds=pause)
    late = plan(scale, failed=failed, seconds=pause)
    assert (late.create, late.held) == (1, False)


@pytest.mark.parametrize("reason", ["ModelLoadFailed", "ConfigError", "ExceedsPool"])
def test_an_error_that_will_not_go_away_waits_for_another_spec(reason):
    scale = Scale(min_replicas=1)
    failed = [failure(reason), failure(ago=-5)]
    found = plan(scale, failed=failed, seconds=86_400)
    assert (found.create, found.held) == (0, True)
    hopeless = count_failures(None, "new", failed, proven=None)
    assert (hopeless.last, hopeless.retry_at) == (failure(reason), None)
    assert plan(scale, failed=[failure(reason, template="old")]).create == 1


def test_who_has_enough_workers_has_no_pause_to_tell_of():
    found = plan(Scale(min_replicas=1), [member("a")], [failure()])
    assert not found.held


def test_failures_are_counted_once_each_and_only_of_the_present_template():
    first = count_failures(None, "new", [failure(ago=9), failure(ago=5, template="old")], proven=None)
    assert first == BackOff(1, failure(ago=9))
    assert count_failures(first, "new", [failure(ago=9)], proven=None) == first
    second = count_failures(first, "new", [failure(ago=9), failure(ago=3, uid="two")], proven=None)
    assert second == BackOff(2, failure(ago=3, uid="two"))
    assert count_failures(second, "newer", [failure(ago=3, uid="two")], proven=None) is None


def test_a_worker_that_has_served_for_a_while_ends_the_count_of_failures():
    assert count_failures(BackOff(3, failure()), "new", [], proven=NOW) is None


def test_two_that_fail_in_the_same_instant_are_two():
    both = count_failures(None, "new", [failure(uid="b"), failure(uid="a")], proven=None)
    assert both == BackOff(2, failure(uid="b"))


members_drawn = st.lists(
    st.builds(
        Member,
        uid=st.uuids().map(str),
        name=st.uuids().map(str),
        state=st.sampled_from(list(STATES)),
        template=st.sampled_from(["new", "old"]),
        created=st.integers(0, 500).map(lambda age: NOW - timedelta(seconds=age)),
        pending=st.integers(0, 20),
        unused_for=st.none() | st.floats(0, 900),
        leaving=st.booleans(),
        charged=st.booleans(),
    ),
    max_size=8,
)
scales_drawn = st.builds(
    Scale, st.integers(0, 3), st.integers(0, 5), st.integers(0, 6), st.integers(1, 9), st.booleans()
)


@given(scales_drawn, members_drawn, st.booleans())
def test_whatever_the_members_are_no_one_at_work_goes_and_never_too_many_are_made(scale, members, demand):
    found = plan(scale, members, demand=demand)
    by_name = {each.name: each for each in members}
    here = sum(each.here for each in members)
    assert len(set(found.let_go)) == len(found.let_go)
    for name in found.let_go:
        gone = by_name[name]
        assert gone.here
        assert gone.pending == 0 or not gone.charged
        assert gone.state in (_S.READY, _S.IDLE, _S.SPAWNING)
    assert 0 <= found.desired <= scale.max_replicas
    assert here + found.create <= max(found.desired, here) + 1
    assert len(found.keep) <= max(scale.min_replicas, scale.replicas, 1)
