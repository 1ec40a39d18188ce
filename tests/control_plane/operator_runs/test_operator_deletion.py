"""Workers and pools that are deleted, in every state, and made again under the same name."""

import pytest

from control_plane.operator_runs.site import until
from modelpool_operator.api import names

pytestmark = [pytest.mark.control_plane, pytest.mark.usefixtures("operator")]


def waiting(world):
    """Spawning, without room."""
    world.worker("big", memory="8Gi")
    world.reaches("Ready", "big")
    world.worker()
    until(lambda: world.status().get("reason") == "WaitingForQuota", "w waits")


def starting(world):
    """Spawning, charged, on its node."""
    world.worker(source="file:///stuck")
    until(lambda: world.status().get("nodeName"), "w has a node")
    assert world.status()["state"] == "Spawning"


def loading(world):
    world.worker(source="file:///slow")
    world.reaches("Loading")


def ready(world):
    world.worker()
    world.reaches("Ready")


def processing(world):
    ready(world)
    world.on_machine(lambda machine: machine.admit())
    world.reaches("Processing")


def idle(world):
    world.worker(idleTimeoutSeconds=1)
    world.reaches("Idle")


def evicting(world):
    processing(world)
    world.patch("w", {"shutdown": True})
    world.reaches("Evicting")


def failed(world):
    world.worker(source="file:///never")
    world.reaches("Failed")


def dead(world):
    ready(world)
    world.patch("w", {"shutdown": True})
    world.reaches("Dead")


@pytest.mark.parametrize(
    "bring",
    [waiting, starting, loading, ready, processing, idle, evicting, failed, dead],
    ids=lambda bring: bring.__name__,
)
def test_a_worker_deleted_in_any_state_leaves_nothing(world, bring):
    """It vanishes only after its pod is gone and its charge given back; a request in flight is waited for."""
    world.pool(failedRetentionSeconds=600)
    bring(world)
    busy = bring in (processing, evicting)
    world.delete()
    if busy:
        until(lambda: world.on_machine(lambda machine: machine.state) == "Evicting", "the process is told")
        assert world.get() is not None
        world.on_machine(lambda machine: machine.done())
    world.vanishes()
    assert [entry["name"] for entry in world.ledger().values()] == (["big"] if bring is waiting else [])
    assert [pod.metadata.labels[names.LABEL_WORKER] for pod in world.pods()] == (["big"] if bring is waiting else [])
    assert world.recorder.states(world.namespace, "w")[-1] == "Dead"
    world.check()


def test_a_worker_that_asks_for_its_end_before_it_was_ever_seen_leaves_nothing(world):
    world.pool()
    world.worker(shutdown=True)
    assert world.reaches("Dead")["reason"] == "Shutdown"
    assert world.settled()
    world.check()


def test_a_worker_made_again_under_the_same_name_is_another_one(world):
    world.pool()
    first = world.worker()
    world.reaches("Ready")
    world.delete()
    world.vanishes()
    second = world.worker()
    world.reaches("Ready")
    assert first["metadata"]["uid"] != second["metadata"]["uid"]
    assert list(world.ledger()) == [second["metadata"]["uid"]]
    assert len({each.obj["metadata"]["name"] for each in world.recorder.of(world.namespace, "pod")}) == 2
    world.check()


def test_a_finalizer_taken_off_by_force_loses_no_charge_and_the_successor_waits_for_the_room(world):
    """The old pod still runs, so its room is still taken; garbage collection ends it, and the sweep the charge."""
    world.pool(memory="1Gi")
    old = world.worker()
    world.reaches("Ready")
    world.kubelet.holding.add(world.namespace)
    try:
        world.delete()
        world.patch_meta("w", {"finalizers": None})
        until(lambda: (world.get() or old)["metadata"]["uid"] != old["metadata"]["uid"] or world.get() is None, "gone")
        new = world.worker()
        until(lambda: world.status().get("reason") == "WaitingForQuota", "the successor waits")
        assert list(world.ledger()) == [old["metadata"]["uid"]]
    finally:
        world.kubelet.holding.discard(world.namespace)
    # the garbage collector learns of a new kind only every 30 s
    world.reaches("Ready", seconds=60)
    assert list(world.ledger()) == [new["metadata"]["uid"]]


def test_a_pool_is_gone_only_after_its_workers_were_drained(world):
    world.pool()
    world.worker("busy")
    world.worker("idle")
    for name in ("busy", "idle"):
        world.reaches("Ready", name)
    world.on_machine(lambda machine: machine.admit(), "busy")
    world.reaches("Processing", "busy")
    world.delete("default", names.MODEL_POOLS)
    assert world.reaches("Dead", "idle")["reason"] == "PoolDrain"
    assert world.get("default", names.MODEL_POOLS) is not None
    world.worker("late")
    assert world.reaches("Dead", "late")["reason"] == "PoolDrain"
    world.on_machine(lambda machine: machine.done(), "busy")
    world.vanishes("default", names.MODEL_POOLS)
    assert world.reaches("Dead", "busy")["reason"] == "PoolDrain"
    assert world.pods() == []
    world.check()


def test_a_worker_whose_pool_is_missing_says_so_and_runs_once_it_is_there(world):
    world.worker()
    until(lambda: world.status().get("reason") == "PoolNotFound", "the reason")
    assert "no ModelPool default" in world.status()["message"]
    world.pool()
    world.reaches("Ready")
    world.check()
