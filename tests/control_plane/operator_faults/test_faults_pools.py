"""A pool shrunk, held, drained or deleted under workers in every state; and specs that were wrong and are put right."""

from collections.abc import Callable
from functools import partial

import pytest
from kubernetes import client

from control_plane.operator_runs.lives import BIRTH, pods_of
from control_plane.operator_runs.site import World, until
from modelpool_operator.api import names

pytestmark = [pytest.mark.control_plane, pytest.mark.usefixtures("operator")]

GIB = 1024


def condition(status, kind):
    return next((each for each in status.get("conditions", ()) if each["type"] == kind), {})


def crowd(world: World) -> None:
    """One worker in each state that a worker with a pod can be in, and one that waits for room that nobody has."""
    world.pool(memory="8Gi", failedRetentionSeconds=600)
    world.worker("starting", "file:///stuck", eviction="Never")
    world.worker("loading", "file:///slow", eviction="Never")
    world.worker("ready", eviction="Never")
    world.worker("idle", idleTimeoutSeconds=1)
    for name in ("processing", "evicting"):
        world.worker(name)
        world.reaches("Ready", name)
        world.on_machine(lambda machine: machine.admit(), name)
        world.reaches("Processing", name)
    world.patch("evicting", {"shutdown": True})
    world.worker("failed", "file:///never")
    for name in ("loading", "ready", "idle", "evicting", "failed"):
        world.reaches(name.capitalize(), name)
    until(lambda: world.status("starting").get("nodeName"), "starting has a node")
    until(lambda: len(world.ledger()) == 6, "the failed one has given its room back")
    world.worker("waiting", memory="7Gi")
    until(lambda: world.status("waiting").get("reason") == "WaitingForQuota", "one waits")
    assert states(world) == UNTOUCHED


UNTOUCHED = {
    "starting": "Spawning",
    "loading": "Loading",
    "ready": "Ready",
    "idle": "Idle",
    "processing": "Processing",
    "evicting": "Evicting",
    "failed": "Failed",
    "waiting": "Spawning",
}


def states(world: World) -> dict[str, str]:
    return {name: world.status(name).get("state", "") for name in UNTOUCHED}


def finish(world: World, *workers: str) -> None:
    """The requests that are running are answered."""
    for name in workers:
        world.on_machine(lambda machine: machine.done(), name)


def consistent(world: World) -> None:
    """The ledger is what lives, and nobody ever had a second pod."""
    made = {name: world.get(name) for name in UNTOUCHED}
    living = {pod.metadata.labels[names.LABEL_WORKER] for pod in world.pods()}

    def same() -> bool:
        nonlocal living
        living = {pod.metadata.labels[names.LABEL_WORKER] for pod in world.pods()}
        return {entry["name"] for entry in world.ledger().values()} == living

    until(same, "the ledger is what lives")
    for worker in made.values():
        if worker is not None:
            assert len(pods_of(world, worker["metadata"]["uid"])) <= 1
    pool = world.get("default", names.MODEL_POOLS)
    assert pool is None or pool["status"].get("ledgerRepairs", 0) == 0


def a_shrunk_pool_ends_only_who_may_go_and_tells_who_never_fits(world):
    crowd(world)
    world.patch("default", {"memory": "4Gi"}, names.MODEL_POOLS)
    assert world.reaches("Dead", "idle")["reason"] == "RoomEviction"
    until(lambda: world.status("waiting")["reason"] == "ExceedsPool", "the one that waits is told")
    until(lambda: condition(world.pool_status(), "OverBudget"), "the pool says that it is over its budget")
    assert states(world) == {**UNTOUCHED, "idle": "Dead"}
    finish(world, "evicting")
    assert world.reaches("Dead", "evicting")["reason"] == "Shutdown"
    until(lambda: not condition(world.pool_status(), "OverBudget"), "it fits")
    assert world.pool_status()["reserved"]["memoryMiB"] == 4 * GIB
    world.patch("default", {"memory": "12Gi"}, names.MODEL_POOLS)
    world.reaches("Ready", "waiting")
    assert states(world) == {**UNTOUCHED, "idle": "Dead", "evicting": "Dead", "waiting": "Ready"}
    consistent(world)
    world.check(over_budget=True)


def a_held_pool_lets_everybody_go_on_and_admits_nobody(world):
    crowd(world)
    world.patch("default", {"stopPolicy": "Hold"}, names.MODEL_POOLS)
    until(lambda: world.status("waiting")["reason"] == "PoolHeld", "the one that waits is told")
    world.load("loading")
    world.reaches("Ready", "loading")
    finish(world, "processing", "evicting")
    world.reaches("Ready", "processing")
    assert world.reaches("Dead", "evicting")["reason"] == "Shutdown"
    world.worker("late")
    until(lambda: world.status("late").get("reason") == "PoolHeld", "a new one waits as well")
    assert {"loading", "ready", "idle", "starting", "processing"} == {each["name"] for each in world.ledger().values()}
    world.patch("default", {"stopPolicy": "None"}, names.MODEL_POOLS)
    world.reaches("Ready", "late")
    until(lambda: world.status("waiting")["reason"] == "WaitingForQuota", "it waits for room again")
    consistent(world)
    world.check()


def a_pool_that_is_drained_or_deleted_ends_everybody_after_their_requests(world, *, how):
    crowd(world)
    if how == "drained":
        world.patch("default", {"stopPolicy": "HoldAndDrain"}, names.MODEL_POOLS)
    else:
        world.delete("default", names.MODEL_POOLS)
    for name in ("starting", "loading", "ready", "idle", "waiting"):
        assert world.reaches("Dead", name)["reason"] == "PoolDrain"
    assert world.reaches("Evicting", "processing")["reason"] == "PoolDrain"
    # until its last request is answered a worker holds its room, and the pool is there
    assert {each["name"] for each in world.ledger().values()} == {"processing", "evicting"}
    finish(world, "processing", "evicting")
    assert world.reaches("Dead", "processing")["reason"] == "PoolDrain"
    assert world.reaches("Dead", "evicting")["reason"] == "Shutdown"
    assert world.status("failed")["reason"] == "ModelLoadFailed"
    if how == "deleted":
        world.vanishes("default", names.MODEL_POOLS)
    else:
        until(world.settled, "all is given back")
        world.patch("default", {"stopPolicy": "None"}, names.MODEL_POOLS)
        world.worker("new")
        world.reaches("Ready", "new")
    assert set(states(world).values()) <= {"Dead", "Failed"}
    if how == "drained":
        consistent(world)
    assert how == "drained" or world.pods() == []
    world.check()


def template_that_the_pool_forbids(world):
    world.pool()
    world.worker(template={"tolerations": [{"key": "gpu", "operator": "Exists"}]})
    until(lambda: world.status().get("reason") == "ConfigError", "the reason")
    assert "does not tolerate gpu" in world.status()["message"]
    return lambda: world.patch("default", {"tolerations": [{"key": "gpu", "operator": "Exists"}]}, names.MODEL_POOLS)


def worker_that_is_too_large(world):
    world.pool(memory="512Mi")
    world.worker()
    until(lambda: world.status().get("reason") == "ExceedsPool", "the reason")
    return lambda: world.patch("default", {"memory": "2Gi"}, names.MODEL_POOLS)


def accelerators_that_the_pool_lacks(world):
    world.pool(gpus=0)
    world.worker(gpus=1)
    until(lambda: world.status().get("reason") == "ExceedsPool", "the reason")
    return lambda: world.patch("default", {"gpus": 1}, names.MODEL_POOLS)


def pod_that_the_namespace_refuses(world):
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    world.core.create_namespaced_resource_quota(world.namespace, quota)
    until(
        lambda: (
            (world.core.read_namespaced_resource_quota("none", world.namespace).status.hard or {}).get("pods") == "0"
        ),
        "the quota is in force",
    )
    world.pool()
    world.worker()
    until(lambda: world.status().get("reason") == "ConfigError", "the reason")
    assert "the API server refuses the pod" in world.status()["message"]
    return lambda: world.core.delete_namespaced_resource_quota("none", world.namespace)


def pool_that_is_not_there(world):
    world.worker()
    until(lambda: world.status().get("reason") == "PoolNotFound", "the reason")
    return world.pool


def what_was_wrong_and_is_put_right_ends_as_if_it_had_been_right_at_once(world, *, wrong):
    put_right = wrong(world)
    assert world.pods() == []
    assert world.ledger() == {}
    put_right()
    status = world.reaches("Ready")
    assert world.states() == list(BIRTH)
    assert condition(status, "Stalled") == {}
    assert [entry["name"] for entry in world.ledger().values()] == ["w"]
    assert len(world.pods()) == 1
    world.check()


def a_pool_that_sends_pods_where_no_node_is_hurts_only_new_ones_and_only_as_long(world):
    world.pool(scheduleDeadlineSeconds=2)
    world.worker("old")
    world.reaches("Ready", "old")
    world.patch("default", {"nodeSelector": {"planet": "mars"}}, names.MODEL_POOLS)
    world.worker()
    assert world.reaches("Dead")["reason"] == "Unschedulable"
    world.patch("default", {"nodeSelector": None}, names.MODEL_POOLS)
    world.delete()
    world.vanishes()
    world.worker()
    world.reaches("Ready")
    assert world.status("old")["state"] == "Ready"
    assert {entry["name"] for entry in world.ledger().values()} == {"old", "w"}
    world.check()


def a_name_is_free_again_only_when_its_stuck_pod_is_gone(world):
    """The node does not end the old pod: its room stays taken and its name in use, until it is gone."""
    world.pool(memory="4Gi")
    first = world.worker()
    world.reaches("Ready")
    world.kubelet.holding.add(world.namespace)
    try:
        world.delete()
        world.reaches("Evicting")
        until(lambda: world.pods()[0].metadata.deletion_timestamp, "the pod is being deleted")
        with pytest.raises(client.ApiException) as refused:
            world.worker()
        assert refused.value.status == 409
        assert list(world.ledger()) == [first["metadata"]["uid"]]
    finally:
        world.kubelet.holding.discard(world.namespace)
    world.vanishes()
    second = world.worker()
    world.reaches("Ready")
    assert list(world.ledger()) == [second["metadata"]["uid"]]
    world.check()


def a_successor_of_the_same_name_runs_beside_the_stuck_pod_of_one_whose_finalizer_was_taken_off(world):
    """Two workers as far as the ledger goes: the old pod may still run, so it stays charged until it is gone."""
    world.pool(memory="4Gi")
    first = world.worker()
    world.reaches("Ready")
    (old,) = world.pods()
    world.kubelet.holding.add(world.namespace)
    try:
        world.delete()
        world.patch_meta("w", {"finalizers": None})
        world.core.delete_namespaced_pod(old.metadata.name, world.namespace)
        until(lambda: (world.get() or first) is None or world.get() is None, "the worker is gone")
        second = world.worker()
        world.reaches("Ready", seconds=40)
        assert set(world.ledger()) == {first["metadata"]["uid"], second["metadata"]["uid"]}
        assert len(world.pods()) == 2
    finally:
        world.kubelet.holding.discard(world.namespace)
    until(lambda: list(world.ledger()) == [second["metadata"]["uid"]], "the old charge is given back")
    assert world.status()["state"] == "Ready"
    assert len(pods_of(world, second["metadata"]["uid"])) == 1


WRONG = (
    template_that_the_pool_forbids,
    worker_that_is_too_large,
    accelerators_that_the_pool_lacks,
    pod_that_the_namespace_refuses,
    pool_that_is_not_there,
)
STORIES: dict[str, Callable[[World], None]] = {
    story.__name__: story
    for story in (
        a_shrunk_pool_ends_only_who_may_go_and_tells_who_never_fits,
        a_held_pool_lets_everybody_go_on_and_admits_nobody,
        a_pool_that_sends_pods_where_no_node_is_hurts_only_new_ones_and_only_as_long,
        a_name_is_free_again_only_when_its_stuck_pod_is_gone,
        a_successor_of_the_same_name_runs_beside_the_stuck_pod_of_one_whose_finalizer_was_taken_off,
    )
}
for how in ("drained", "deleted"):
    STORIES[f"a_pool_that_is_{how}"] = partial(
        a_pool_that_is_drained_or_deleted_ends_everybody_after_their_requests, how=how
    )
for wrong in WRONG:
    STORIES[wrong.__name__] = partial(what_was_wrong_and_is_put_right_ends_as_if_it_had_been_right_at_once, wrong=wrong)


@pytest.fixture(scope="module")
def runs(site, operator, abreast):
    assert operator.running
    return abreast({name: lambda _, story=story: story(site.world()) for name, story in STORIES.items()})


@pytest.mark.parametrize("story", STORIES)
def test_whatever_is_done_to_a_pool_its_ledger_and_its_workers_agree(runs, story):
    runs(story)
