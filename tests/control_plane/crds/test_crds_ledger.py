"""The ledger as the API server keeps it: the sum is exact and nothing is added beyond the budget."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from kubernetes.client import ApiException

from control_plane.crds.resources import Resources, assert_refused, entry, pool

pytestmark = pytest.mark.control_plane

BEYOND = "no reservation may be added beyond the pool's budget"
SUM = "status.reserved must be the sum of status.ledger"


def reserved(memory_mib: int, gpus: int = 0):
    return {"memoryMiB": memory_mib, "gpus": gpus}


def full(*uids: str, memory_mib: int = 8192, gpus: int = 0):
    """A status with one entry per uid and the right sum."""
    return {
        "ledger": {uid: entry(memory_mib, gpus) for uid in uids},
        "reserved": reserved(memory_mib * len(uids), gpus * len(uids)),
    }


@pytest.mark.parametrize(
    ("spec", "status"),
    [
        pytest.param({}, {"ledger": {}, "reserved": reserved(0)}, id="empty"),
        pytest.param({"memory": "16Gi"}, full("a", "b"), id="to the brim"),
        pytest.param({"memory": "16Gi", "gpus": 4}, full("a", "b", gpus=2), id="to the brim in both"),
        pytest.param({"memory": "17179869184"}, full("a", "b"), id="budget in bytes"),
        pytest.param({"memory": "0.5Ti"}, full(*"abcdefgh"), id="budget with a fraction"),
        pytest.param({"memory": "1Gi"}, {**full("a"), "ledgerRepairs": 1}, id="a repair is always charged"),
        pytest.param({}, full(*(f"uid-{number}" for number in range(1000)), memory_mib=1), id="1000 entries"),
    ],
)
def test_a_true_ledger_is_accepted(pools, spec, status):
    pools.create(pool(**spec))
    assert pools.patch_status("default", status)["status"] == status


def test_a_thousand_entries_can_change_one_by_one(pools):
    """The rules' cost stays within the API server's budget for the largest ledger."""
    pools.create(pool())
    pools.patch_status("default", full(*(f"uid-{number}" for number in range(1000)), memory_mib=1))
    pools.patch_status("default", {"ledger": {"uid-7": None}, "reserved": reserved(999)})
    after = pools.patch_status("default", {"ledger": {"new": entry(1)}, "reserved": reserved(1000)})
    assert len(after["status"]["ledger"]) == 1000


@pytest.mark.parametrize(
    ("spec", "status", "field", "message"),
    [
        pytest.param({}, {**full("a"), "reserved": reserved(8191)}, "status", SUM, id="sum too small"),
        pytest.param({}, {**full("a"), "reserved": reserved(8193)}, "status", SUM, id="sum too large"),
        pytest.param(
            {"gpus": 2}, {**full("a", gpus=1), "reserved": reserved(8192)}, "status", SUM, id="gpus not counted"
        ),
        pytest.param({}, {"ledger": {}, "reserved": reserved(1)}, "status", SUM, id="something for nothing"),
        pytest.param(
            {}, {"ledger": {"a": entry()}}, "status", "status.reserved and status.ledger come together", id="no sum"
        ),
        pytest.param(
            {}, {"reserved": reserved(0)}, "status", "status.reserved and status.ledger come together", id="no ledger"
        ),
        pytest.param({"memory": "8Gi"}, full("a", memory_mib=8193), "", BEYOND, id="one MiB too much"),
        pytest.param({"memory": "8589934591"}, full("a"), "", BEYOND, id="one byte too much"),
        pytest.param({"gpus": 1}, full("a", gpus=2), "", BEYOND, id="one GPU too much"),
        pytest.param({}, full("a", gpus=1), "", BEYOND, id="a GPU where there is none"),
        pytest.param(
            {"memory": "1Gi"}, {**full("a"), "ledgerRepairs": 0}, "", BEYOND, id="a repair that counts nothing"
        ),
        pytest.param(
            {},
            full(*(f"uid-{number}" for number in range(1001)), memory_mib=1),
            "status.ledger",
            "Too many: 1001: must have at most 1000 items",
            id="1001 entries",
        ),
        pytest.param(
            {},
            {"ledger": {"a": entry(-1)}, "reserved": reserved(-1)},
            "status.ledger.a.memoryMiB",
            "should be greater than or equal to 0",
            id="negative memory",
        ),
        pytest.param(
            {},
            {"ledger": {"a": {"name": "minilm", "memoryMiB": 0, "gpus": 0}}, "reserved": reserved(0)},
            "status.ledger.a.podUID",
            "Required value",
            id="an entry without its pod",
        ),
    ],
)
def test_a_false_ledger_is_refused(pools, spec, status, field, message):
    pools.create(pool(**spec))
    with pytest.raises(ApiException) as raised:
        pools.patch_status("default", status)
    assert_refused(raised, field, message)
    assert "status" not in pools.get("default")


@pytest.mark.parametrize(
    ("status", "message"),
    [
        pytest.param({"ledger": None, "reserved": None}, "status.ledger may not be removed", id="ledger and sum"),
        pytest.param({"ledger": None}, "status.reserved and status.ledger come together", id="ledger alone"),
        pytest.param({"ledgerRepairs": 1}, "status.ledgerRepairs never goes back", id="repairs taken back"),
        pytest.param({"ledgerRepairs": None}, "status.ledgerRepairs never goes back", id="repairs removed"),
    ],
)
def test_the_ledger_does_not_vanish(pools, status, message):
    pools.create(pool())
    pools.patch_status("default", {**full("a"), "ledgerRepairs": 2})
    with pytest.raises(ApiException) as raised:
        pools.patch_status("default", status)
    assert_refused(raised, "status", message)


def test_the_status_of_a_pool_may_not_be_removed(pools):
    pools.create(pool())
    pools.patch_status("default", full("a"))
    with pytest.raises(ApiException) as raised:
        pools.patch_status("default", None)
    assert_refused(raised, "", "status may not be removed")


def test_releasing_an_absent_entry_changes_nothing(pools):
    pools.create(pool())
    before = pools.patch_status("default", full("a"))
    after = pools.patch_status("default", {"ledger": {"gone": None}})
    assert after["status"] == before["status"]
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


class TestShrunkPool:
    """24 GiB reserved, then the budget is cut to 8 GiB."""

    @pytest.fixture
    def shrunk(self, pools: Resources) -> Resources:
        pools.create(pool(memory="24Gi", gpus=6))
        pools.patch_status("default", full("a", "b", "c", gpus=2))
        pools.patch("default", {"memory": "8Gi", "gpus": 1})
        return pools

    def test_it_may_release_though_the_rest_is_still_too_much(self, shrunk):
        after = shrunk.patch_status("default", {"ledger": {"a": None}, "reserved": reserved(16384, 4)})
        assert set(after["status"]["ledger"]) == {"b", "c"}

    def test_other_fields_of_its_status_can_be_written(self, shrunk):
        assert shrunk.patch_status("default", {"observedGeneration": 2})["status"]["observedGeneration"] == 2

    def test_it_admits_nothing_even_where_the_sum_falls(self, shrunk):
        status = {"ledger": {"a": None, "b": None, "new": entry(8192, 2)}, "reserved": reserved(16384, 4)}
        with pytest.raises(ApiException) as raised:
            shrunk.patch_status("default", status)
        assert_refused(raised, "", BEYOND)

    @pytest.mark.parametrize(
        ("memory_mib", "gpus"), [pytest.param(8193, 2, id="memory"), pytest.param(8192, 3, id="gpus")]
    )
    def test_no_entry_of_it_grows(self, shrunk, memory_mib, gpus):
        status = {"ledger": {"a": entry(memory_mib, gpus)}, "reserved": reserved(16384 + memory_mib, 4 + gpus)}
        with pytest.raises(ApiException) as raised:
            shrunk.patch_status("default", status)
        assert_refused(raised, "", BEYOND)

    def test_a_repair_is_charged_all_the_same(self, shrunk):
        status = {"ledger": {"new": entry(8192, 2)}, "reserved": reserved(32768, 8), "ledgerRepairs": 1}
        assert shrunk.patch_status("default", status)["status"]["reserved"] == reserved(32768, 8)


@pytest.mark.parametrize("carries_version", [True, False], ids=["with resourceVersion", "without"])
def test_eight_racers_on_a_budget_of_five(pools, carries_version):
    """All plan on the same empty pool; exactly five win and each winner is in the ledger.

    The resourceVersion a write was planned on makes the late ones conflict. Without one, the stale sum that a merge
    patch carries no longer fits the ledger that it is merged into, and the rule on the sum refuses it.
    """
    pools.create(pool(memory="40Gi"))
    pools.patch_status("default", {"ledger": {}, "reserved": reserved(0)})
    start = threading.Barrier(8)

    def race(number: int) -> bool:
        seen = pools.get("default")
        start.wait()
        while True:
            held = seen["status"]["reserved"]["memoryMiB"]
            if held + 8192 > 40 * 1024:
                return False
            status = {"ledger": {f"racer-{number}": entry()}, "reserved": reserved(held + 8192)}
            version = seen["metadata"]["resourceVersion"] if carries_version else None
            try:
                pools.patch_status("default", status, version)
            except ApiException as error:
                if error.status not in (409, 422):
                    raise
                seen = pools.get("default")
            else:
                return True

    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(race, range(8)))
    final = pools.get("default")["status"]
    assert won.count(True) == 5
    assert set(final["ledger"]) == {f"racer-{number}" for number, granted in enumerate(won) if granted}
    assert final["reserved"] == reserved(5 * 8192)
