"""One write of a pool's status: the sum, the release, the repair."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpool_api import WorkerState
from modelpool_operator.domain.ledger import LedgerChange, count_states, status_patch
from modelpool_operator.domain.objects import Amount, Entry
from unit.modelpool_operator.domain.scenes import NOW, UID, entry, pool, running, worker

_S = WorkerState


def named(name: str, state: WorkerState = _S.SPAWNING, memory: str = "1Gi", gpus: int = 0, **status: Any) -> Any:
    return worker(state, meta={"name": name, "uid": name}, memory=memory, gpus=gpus, status=status)


def reservation(name: str, memory_mib: int = 1024, gpus: int = 0) -> Entry:
    return Entry(name, name, "p", Amount(memory_mib, gpus), "2026-01-02T03:04:05Z")


def merge(document: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def write(of, change, workers=()):
    """The pool's status after the patch, or None where nothing is written."""
    patch = status_patch(of, change, workers, NOW)
    return None if patch is None else merge(dict(of.status), patch)


def test_a_new_pool_gets_its_empty_ledger_with_the_sum():
    """The API server wants both together."""
    fresh = replace(pool(), status={})
    status = write(fresh, LedgerChange())
    assert status["ledger"] == {}
    assert status["reserved"] == {"memoryMiB": 0, "gpus": 0}
    assert status["available"] == {"memoryMiB": 65536, "gpus": 8}


def test_reservations_of_one_moment_go_into_one_write():
    change = LedgerChange(reserved=((named("a"), "pod-a"), (named("b", memory="2Gi", gpus=1), "pod-b")))
    status = write(pool(), change, [named("a"), named("b")])
    assert status["reserved"] == {"memoryMiB": 3072, "gpus": 1}
    assert status["ledger"]["b"] == {
        "name": "b",
        "podUID": "pod-b",
        "memoryMiB": 2048,
        "gpus": 1,
        "since": "2026-01-02T03:04:05.000000Z",
    }
    assert status["workers"] == {"Spawning": 2}


def test_a_release_removes_the_entry_and_keeps_the_others():
    of = pool({"a": entry(name="a"), "b": entry(2048, 1, name="b")})
    status = write(of, LedgerChange(released=(reservation("a"),)), [named("a", _S.EVICTING, reason="Shutdown")])
    assert list(status["ledger"]) == ["b"]
    assert status["reserved"] == {"memoryMiB": 2048, "gpus": 1}
    assert status["evicted"] == {"Shutdown": 1}


def test_releasing_an_absent_entry_changes_no_sum():
    of = pool({"b": entry(name="b")})
    settled = write(of, LedgerChange())
    again = write(pool({"b": entry(name="b")}, status=settled), LedgerChange(released=(reservation("a"),)))
    assert again is None or again["reserved"] == {"memoryMiB": 1024, "gpus": 0}


def test_release_and_reservation_in_one_write():
    of = pool({"a": entry(2048, name="a")})
    change = LedgerChange(released=(reservation("a", 2048),), reserved=((named("b"), "pod-b"),))
    status = write(of, change)
    assert list(status["ledger"]) == ["b"]
    assert status["reserved"] == {"memoryMiB": 1024, "gpus": 0}


def test_nothing_is_written_where_nothing_changed():
    settled = write(pool({"a": entry(name="a")}), LedgerChange())
    assert status_patch(pool({"a": entry(name="a")}, status=settled), LedgerChange(), [named("a")], NOW) is None


def test_counts_that_became_zero_are_removed():
    of = pool({"a": entry(name="a")}, status={"workers": {"Ready": 1, "Loading": 2}})
    patch = status_patch(of, LedgerChange(released=(reservation("a"),)), [named("a", _S.EVICTING)], NOW)
    assert patch["workers"] == {"Ready": None, "Loading": None, "Evicting": 1}


@pytest.mark.parametrize(
    ("workers", "reason"),
    [
        pytest.param([named("a", _S.FAILED, reason="CrashLoopBackOff")], "CrashLoopBackOff", id="failed"),
        pytest.param([named("a", _S.READY)], "PodLost", id="lost-while-serving"),
        pytest.param([], "PodLost", id="worker-unknown"),
    ],
)
def test_who_gave_back_is_counted_by_reason_on_top_of_what_was_counted(workers, reason):
    of = pool({"a": entry(name="a")}, status={"evicted": {reason: 2, "Deleted": 1}})
    status = write(of, LedgerChange(released=(reservation("a"),)), workers)
    assert status["evicted"] == {reason: 3, "Deleted": 1}


def test_repairs_are_counted_on():
    of = pool({"ghost": entry(name="ghost")}, status={"ledgerRepairs": 4})
    change = LedgerChange(released=(reservation("ghost"),), found=((named("run"), running()),), lost=1)
    status = write(of, change)
    assert status["ledgerRepairs"] == 6
    assert list(status["ledger"]) == ["run"]


def test_a_plain_release_is_no_repair():
    of = pool({"a": entry(name="a")})
    assert "ledgerRepairs" not in write(of, LedgerChange(released=(reservation("a"),)), [named("a", _S.EVICTING)])


def conditions(status):
    return {each["type"]: (each["status"], each["reason"]) for each in status["conditions"]}


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        pytest.param({}, {"Ready": ("True", "Admitting")}, id="works"),
        pytest.param({"stopPolicy": "Hold"}, {"Ready": ("False", "Hold")}, id="held"),
        pytest.param(
            {"deleting": True}, {"Ready": ("False", "Deleting"), "Reconciling": ("True", "Deleting")}, id="deleted"
        ),
        pytest.param(
            {"memory": "1Gi"}, {"Ready": ("True", "Admitting"), "OverBudget": ("True", "OverBudget")}, id="shrunk"
        ),
    ],
)
def test_conditions_of_the_pool(what, expected):
    assert conditions(write(pool({"a": entry(2048, name="a")}, **what), LedgerChange())) == expected


def test_a_shrunk_pool_shows_by_how_much():
    status = write(pool({"a": entry(2048, name="a")}, memory="1Gi", gpus=0), LedgerChange())
    assert status["available"] == {"memoryMiB": -1024, "gpus": 0}


def test_workers_are_counted_by_state_and_one_that_is_not_accepted_yet_is_not():
    workers = [named("a", _S.READY), named("b", _S.READY), named("c", _S.DEAD)]
    assert count_states([*workers, worker(None)]) == {"Ready": 2, "Dead": 1}


SIZES = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 9))


@given(SIZES, SIZES, st.sets(st.sampled_from("abcdefgh")))
@settings(max_examples=200, deadline=None, database=None, print_blob=True)
def test_after_any_write_reserved_is_the_sum_of_the_ledger(held, wanted, released):
    of = pool({name: entry(size * 1024, name=name) for name, size in held.items()})
    change = LedgerChange(
        released=tuple(reservation(name, held.get(name, 1) * 1024) for name in sorted(released)),
        reserved=tuple((named(name, memory=f"{size}Gi"), "p") for name, size in wanted.items() if name not in held),
    )
    status = write(of, change) or dict(of.status)
    assert status["reserved"]["memoryMiB"] == sum(each["memoryMiB"] for each in status["ledger"].values())
    stays = (set(held) - released) | (set(wanted) - set(held))
    assert set(status["ledger"]) == stays


@pytest.mark.parametrize(("recount", "written"), [(True, {"Spawning": None, "Ready": 1}), (False, None)], ids=str)
def test_counts_that_no_ledger_write_brought_up_to_date_are_written_when_asked_for(recount, written):
    entries = {UID: entry()}
    first = status_patch(pool(entries), LedgerChange(), [], NOW) or {}
    of = pool(entries, status={**first, "workers": {"Spawning": 1}})

    patch = status_patch(of, LedgerChange(), [worker()], NOW, recount=recount)

    assert (patch or {}).get("workers") == written
