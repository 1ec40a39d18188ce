"""What requests want of a Model, as its demand Lease says: heard, lapsed, forgotten."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from modelpool_operator.api import names
from modelpool_operator.domain.model_plan import Demand
from modelpool_operator.runtime.demands import HOLDS, Demands

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
KEY, UID = ("team-a", "minilm"), "model-uid"


class Clock:
    """Monotonic seconds that move when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def lease(version: str = "1", *, renewed: float = 0.0, keep: str | None = None, name: str = "demand-minilm", **labels):
    """A demand Lease that was renewed so many seconds ago by its holder's clock."""
    meta: dict[str, Any] = {"namespace": "team-a", "name": name, "resourceVersion": version}
    meta["labels"] = labels or {names.LABEL_DEMAND: "minilm"}
    if keep is not None:
        meta["annotations"] = {names.ANNOTATION_KEEP_ALIVE: keep}
    return {"metadata": meta, "spec": {"renewTime": (NOW - timedelta(seconds=renewed)).isoformat()}}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def demands(clock) -> Demands:
    """Of an operator that has listened for a while."""
    made = Demands(clock)
    clock.now += HOLDS
    return made


def test_an_operator_that_has_just_begun_does_not_know_that_nobody_waits(clock):
    demands = Demands(clock)
    assert demands.of(KEY, UID) == Demand(known=False)
    clock.now += HOLDS - 1
    assert demands.settles_in() == 1
    clock.now += 1
    assert demands.of(KEY, UID) == Demand()


def test_a_model_made_anew_does_not_inherit_what_was_said_of_the_one_before(demands):
    of_another = lease(keep="-1")
    of_another["metadata"]["ownerReferences"] = [{"uid": "older", "kind": "Model", "name": "minilm"}]
    demands.observe(of_another, NOW)
    assert demands.of(KEY, UID) == Demand()
    assert demands.of(KEY, "older").keep_alive == -1


def test_a_word_that_was_written_down_is_not_said_again(demands):
    demands.observe(lease(keep="60"), NOW)
    demands.taken(KEY, 30)
    assert demands.of(KEY, UID).keep_alive == 60
    demands.taken(KEY, 60)
    assert demands.of(KEY, UID).keep_alive is None


def test_a_new_lease_is_a_wish_until_it_lapses(demands, clock):
    assert demands.of(KEY, UID) == Demand()
    assert demands.observe(lease(), NOW) == KEY
    assert demands.of(KEY, UID).wanted
    clock.now += HOLDS - 0.1
    assert demands.lapses_in(KEY) == pytest.approx(0.1)
    clock.now += 0.2
    assert not demands.of(KEY, UID).wanted
    assert demands.lapses_in(KEY) == 0


def test_each_change_that_is_seen_counts_anew_whatever_its_clock_says(demands, clock):
    demands.observe(lease(), NOW)
    clock.now += HOLDS
    assert demands.observe(lease("2", renewed=9999), NOW) == KEY
    assert demands.of(KEY, UID).wanted


def test_the_same_version_seen_again_is_no_news(demands, clock):
    demands.observe(lease(), NOW)
    clock.now += HOLDS
    assert demands.observe(lease(), NOW) is None
    assert not demands.of(KEY, UID).wanted


def test_a_lease_left_over_from_long_ago_starts_nothing(demands):
    """A restarted operator sees all Leases for the first time."""
    demands.observe(lease(renewed=60), NOW)
    assert not demands.of(KEY, UID).wanted


def test_keep_alive_is_no_wish_for_a_worker_and_does_not_end_one(demands):
    demands.observe(lease(keep="0"), NOW)
    assert demands.of(KEY, UID) == Demand(wanted=False, keep_alive=0)
    demands.observe(lease("2"), NOW)
    demands.observe(lease("3", keep="-1"), NOW)
    assert demands.of(KEY, UID) == Demand(wanted=True, keep_alive=-1)


def test_the_last_keep_alive_holds_while_others_only_wait(demands):
    demands.observe(lease(keep="60"), NOW)
    demands.observe(lease("2"), NOW)
    assert demands.of(KEY, UID) == Demand(wanted=True, keep_alive=60)


@pytest.mark.parametrize("text", ["soon", "", "1.5", "9" * 400])
def test_nonsense_is_not_heard(demands, text):
    demands.observe(lease(keep="60"), NOW)
    demands.observe(lease("2", keep=text), NOW)
    assert demands.of(KEY, UID).keep_alive in (60, int("9" * 12))


def test_a_renew_time_that_is_none_is_old(demands):
    broken = lease()
    broken["spec"]["renewTime"] = "yesterday"
    demands.observe(broken, NOW)
    assert not demands.of(KEY, UID).wanted


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lease(name="kube-scheduler"), id="another-name"),
        pytest.param(lease(other="x"), id="no-label"),
    ],
)
def test_other_leases_are_nobodys_wish(demands, other):
    assert demands.observe(other, NOW) is None
    assert demands.forget(other) is None


def test_a_deleted_lease_wants_nothing_more(demands):
    demands.observe(lease(), NOW)
    assert demands.forget(lease()) == KEY
    assert demands.of(KEY, UID) == Demand()
