"""A pool's room: given by rank, made by eviction, held back, taken away; the ledger exact all the time."""

import time

import pytest

from control_plane.operator_runs.site import until
from modelpool_operator.api import names

pytestmark = [pytest.mark.control_plane, pytest.mark.usefixtures("operator")]


def condition(status, kind):
    return next((each for each in status.get("conditions", ()) if each["type"] == kind), {})


def test_a_burst_is_served_up_to_the_budget_and_the_rest_waits_with_a_sentence(world):
    world.pool(memory="3Gi")
    for number in range(6):
        world.worker(f"w{number}")
    until(lambda: len(world.ledger()) == 3, "three reservations")
    lucky = {entry["name"] for entry in world.ledger().values()}
    for name in lucky:
        world.reaches("Ready", name)
    unlucky = sorted({f"w{number}" for number in range(6)} - lucky)
    for name in unlucky:
        until(lambda name=name: world.status(name).get("reason") == "WaitingForQuota", f"{name} waits")
        status = world.status(name)
        assert "1024 MiB short" in status["message"]
        assert condition(status, "QuotaReserved")["status"] == "False"
    assert len(world.pods()) == 3
    for name in lucky:
        world.delete(name)
    for name in unlucky:
        world.reaches("Ready", name)
    assert max(world.recorder.reserved(world.namespace)) == 3072
    world.check()


def test_priority_goes_before_age(world):
    world.pool(memory="1Gi")
    world.worker("holder", eviction="Never")
    world.reaches("Ready", "holder")
    world.worker("early")
    world.worker("late", priority=10)
    for name in ("early", "late"):
        until(lambda name=name: world.status(name).get("reason") == "WaitingForQuota", f"{name} waits")
    world.patch("holder", {"shutdown": True})
    world.reaches("Ready", "late")
    assert world.status("early")["state"] == "Spawning"
    world.check()


def test_room_is_made_by_an_unused_worker_and_never_by_a_busy_one(world):
    world.pool(memory="2Gi", idleTimeoutSeconds=1)
    world.worker("busy", idleTimeoutSeconds=600)
    world.worker("unused")
    world.reaches("Ready", "busy")
    world.on_machine(lambda machine: machine.admit(), "busy")
    world.reaches("Processing", "busy")
    world.reaches("Idle", "unused")
    world.worker("new")
    assert world.reaches("Dead", "unused")["reason"] == "RoomEviction"
    world.reaches("Ready", "new")
    assert world.status("busy")["state"] == "Processing"
    assert "Evicting" not in world.states("busy")
    world.check()


def test_a_worker_that_can_never_fit_is_told_so_at_once_and_runs_when_the_pool_grows(world):
    world.pool(memory="1Gi")
    world.worker(memory="2Gi")
    until(lambda: world.status().get("reason") == "ExceedsPool", "the reason")
    assert condition(world.status(), "Stalled")["reason"] == "ExceedsPool"
    assert world.pods() == []
    world.patch("default", {"memory": "4Gi"}, names.MODEL_POOLS)
    world.reaches("Ready")
    assert condition(world.status(), "Stalled") == {}
    world.check()


def test_a_held_pool_admits_nobody_and_keeps_whom_it_has(world):
    world.pool()
    world.worker("old")
    world.reaches("Ready", "old")
    world.patch("default", {"stopPolicy": "Hold"}, names.MODEL_POOLS)
    world.worker("new")
    until(lambda: world.status("new").get("reason") == "PoolHeld", "the reason")
    assert world.status("old")["state"] == "Ready"
    world.patch("default", {"stopPolicy": "None"}, names.MODEL_POOLS)
    world.reaches("Ready", "new")
    world.check()


def test_a_drained_pool_ends_its_workers_and_admits_again_afterwards(world):
    world.pool()
    world.worker("old")
    world.reaches("Ready", "old")
    world.patch("default", {"stopPolicy": "HoldAndDrain"}, names.MODEL_POOLS)
    assert world.reaches("Dead", "old")["reason"] == "PoolDrain"
    until(world.settled, "the pool is empty")
    world.patch("default", {"stopPolicy": "None"}, names.MODEL_POOLS)
    world.worker("new")
    world.reaches("Ready", "new")
    world.check()


def test_a_shrunk_pool_is_over_its_budget_until_those_who_may_go_have_gone(world):
    world.pool(memory="3Gi", idleTimeoutSeconds=1)
    world.worker("busy", idleTimeoutSeconds=600)
    world.worker("pinned", eviction="Never")
    world.worker("unused")
    world.reaches("Ready", "busy")
    world.on_machine(lambda machine: machine.admit(), "busy")
    world.reaches("Processing", "busy")
    for name in ("pinned", "unused"):
        world.reaches("Idle", name)
    world.patch("default", {"memory": "1Gi"}, names.MODEL_POOLS)
    assert world.reaches("Dead", "unused")["reason"] == "RoomEviction"
    until(lambda: len(world.ledger()) == 2, "one reservation less")
    assert condition(world.pool_status(), "OverBudget")["status"] == "True"
    assert world.pool_status()["available"]["memoryMiB"] == -1024
    assert world.status("busy")["state"] == "Processing"
    world.on_machine(lambda machine: machine.done(), "busy")
    world.patch("pinned", {"shutdown": True})
    until(lambda: len(world.ledger()) == 1, "the pool fits")
    until(lambda: condition(world.pool_status(), "OverBudget") == {}, "the condition is gone")
    world.check(over_budget=True)


def test_gpus_are_a_second_dimension(world):
    world.pool(memory="64Gi", gpus=1)
    world.worker("a", gpus=1)
    world.reaches("Ready", "a")
    world.worker("b", gpus=1)
    until(lambda: "1 GPU short" in world.status("b").get("message", ""), "b waits for an accelerator")
    world.worker("c")
    world.reaches("Ready", "c")
    world.delete("a")
    world.reaches("Ready", "b")
    (limits,) = [
        pod.spec.containers[0].resources.limits
        for pod in world.pods()
        if pod.metadata.labels[names.LABEL_WORKER] == "b"
    ]
    assert limits == {"nvidia.com/gpu": "1"}
    world.check()


def test_a_pod_that_runs_without_a_reservation_is_charged_and_counted(world):
    """Somebody lifted the gate: the truth is what runs."""
    world.pool(stopPolicy="Hold")
    made = world.worker()
    until(lambda: world.status().get("reason") == "PoolHeld", "w waits")
    labels = {
        "app.kubernetes.io/managed-by": "modelpool-operator",
        names.LABEL_WORKER: "w",
        names.LABEL_WORKER_UID: made["metadata"]["uid"],
        names.LABEL_POOL: "default",
    }
    owner = {"apiVersion": names.API_VERSION, "kind": names.MODEL_WORKER, "name": "w", "controller": True}
    owner |= {"uid": made["metadata"]["uid"]}
    name = f"w-{made['metadata']['uid'][:5]}"
    world.core.create_namespaced_pod(
        world.namespace,
        {
            "metadata": {"name": name, "labels": labels, "ownerReferences": [owner]},
            "spec": {"schedulerName": "nobody", "containers": [{"name": "worker", "image": "x"}]},
        },
    )
    until(lambda: world.ledger(), "the charge")
    assert world.pool_status()["ledgerRepairs"] == 1
    assert world.pool_status()["reserved"]["memoryMiB"] == 1024


def test_a_worker_that_answers_for_its_health_and_never_ends_its_work_keeps_its_room_until_it_is_told_to_go(world):
    """Nobody but its owner knows that it hangs: neither idleness nor the need of others may end it."""
    world.open_pool(memory="1Gi", drainTimeoutSeconds=1)
    world.worker()
    world.reaches("Ready")
    world.on_machine(lambda machine: machine.admit())
    world.reaches("Processing")
    world.patch("w", {"idleTimeoutSeconds": 0, "evictAfterSeconds": 0})
    world.worker("other")
    until(lambda: world.status("other").get("reason") == "WaitingForQuota", "the other one waits for the room")
    passes = time.monotonic() + 4  # one comes every second
    until(lambda: time.monotonic() > passes, "some passes of maintenance")
    assert world.states() == ["Spawning", "Loading", "Ready", "Processing"]
    world.patch("w", {"shutdown": True})
    world.reaches("Evicting")
    world.crash(exit_code=137)  # what the kubelet does after the time to drain
    assert world.reaches("Dead")["reason"] == "Shutdown"
    world.reaches("Ready", "other")
    world.check()
