"""Models under the real operator, on a real API server: workers come by demand and go by themselves."""

import threading
import time
from datetime import datetime
from typing import Any

import pytest
from kubernetes import client

from control_plane.operator_runs.site import MERGE, World, until
from modelpool_operator.api import names

pytestmark = [pytest.mark.control_plane, pytest.mark.usefixtures("operator")]

Json = dict[str, Any]


def test_a_cold_model_is_known_costs_nothing_and_is_ready(world):
    world.open_pool()
    world.model()
    until(lambda: world.model_ready() == ("True", "ScaledToZero"), "the Model is told to be ready")
    assert world.worker_names() == []
    assert world.ledger() == {}


def test_demand_makes_one_worker_that_goes_when_it_is_not_used(world):
    world.open_pool(idleTimeoutSeconds=1, evictAfterSeconds=2)
    world.model()
    world.ask()
    until(lambda: world.worker_names() == ["m-1"], "a worker is made")
    world.reaches("Ready", "m-1")
    until(lambda: world.model_ready() == ("True", "WorkersReady"), "the Model serves")
    status = world.model_status()
    assert (status["replicas"], status["serial"]) == (1, 1)
    assert status["coldStartSeconds"]["total"] > 0
    assert [pod.metadata.labels[names.LABEL_MODEL] for pod in world.pods()] == ["m"]
    # kept while somebody wants it, then unused: it goes, and nothing takes its place
    assert world.reaches("Dead", "m-1", seconds=40)["reason"] == "IdleEviction"
    until(lambda: world.model_status()["replicas"] == 0, "nobody is left")
    assert world.worker_names() in (["m-1"], [])
    world.vanishes("m-1")
    assert world.recorder.reserved(world.namespace) == [0, 1024, 0]
    world.check()


def test_a_thousand_who_ask_at_once_get_one_worker(world):
    """Twenty gateways at a time renew the Lease as fast as they can."""
    world.open_pool()
    world.model()
    threads = [threading.Thread(target=lambda: [_ask_anyway(world) for _ in range(10)]) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    world.reaches("Ready", "m-1")
    assert world.worker_names() == ["m-1"]


def _ask_anyway(world: World) -> None:
    try:
        world.ask()
    except client.ApiException as error:
        if error.status != 409:
            raise


def test_a_worker_that_fails_is_told_and_followed_by_another_after_a_pause(world):
    world.open_pool(failedRetentionSeconds=60, restartLimit=0)
    world.model(source="file:///crash")
    world.ask()
    failed = world.reaches("Failed", "m-1")
    until(lambda: world.model_status().get("backOff"), "the failure is told")
    told_of = world.model_status()["backOff"]
    assert (told_of["failures"], told_of["reason"]) == (1, failed["reason"])
    assert world.model_ready() == ("False", failed["reason"])
    until(lambda: world.ledger() == {}, "the room is given back")
    for _ in range(4):
        world.ask()
    until(lambda: (world.ask(), "m-2" in world.worker_names())[1], "another one is made after the pause", seconds=30)
    until(lambda: world.model_status()["serial"] == 2, "its number is written down")
    world.check()


def test_a_load_that_can_never_succeed_is_not_tried_again_until_the_spec_changes(world):
    world.open_pool(failedRetentionSeconds=1)
    world.model(source="file:///never")
    world.ask()
    until(
        lambda: [each["type"] for each in world.model_status().get("conditions") or ()] == ["Ready", "Stalled"],
        "stalled",
    )
    world.ask()
    assert "retryTime" not in world.model_status()["backOff"]
    world.vanishes("m-1")
    assert world.worker_names() == []
    world.patch("m", {"worker": {"model": {"source": "file:///serve"}}}, names.MODELS)
    world.ask()
    world.reaches("Ready", "m-2")
    until(lambda: "backOff" not in world.model_status(), "all is forgotten")
    world.check()


def test_it_is_scaled_by_its_scale_and_by_what_is_pending(world):
    world.open_pool(idleTimeoutSeconds=1, evictAfterSeconds=1)
    world.model(maxReplicas=3, targetPending=2)
    world.objects.patch_namespaced_custom_object_scale(
        names.GROUP, names.VERSION, world.namespace, names.MODELS, "m", {"spec": {"replicas": 1}}, _content_type=MERGE
    )
    world.reaches("Ready", "m-1")
    for _ in range(5):
        world.on_machine(lambda machine: machine.admit(), "m-1")
    until(lambda: world.worker_names() == ["m-1", "m-2", "m-3"], "as many as the requests want")
    until(lambda: world.model_status()["desiredReplicas"] == 3, "it is told")
    world.reaches("Ready", "m-2")
    for _ in range(5):
        world.on_machine(lambda machine: machine.done(), "m-1")
    # one is kept, those that are too many go by their idle time
    until(lambda: world.model_status().get("replicas") == 1, "back to the floor")
    until(lambda: world.model_status()["desiredReplicas"] == 1, "it is told")
    world.patch("m", {"replicas": 0}, names.MODELS)
    until(lambda: world.model_status().get("replicas") == 0, "down to nothing")
    world.check()


def test_another_template_takes_the_place_of_the_old_one(world):
    world.open_pool()
    world.model(minReplicas=1)
    world.reaches("Ready", "m-1")
    world.patch("m", {"worker": {"memory": "2Gi"}}, names.MODELS)
    world.reaches("Ready", "m-2")
    assert world.reaches("Dead", "m-1")["reason"] == "Replaced"
    until(lambda: world.model_status().get("replicas") == 1, "one is left")
    # the new one served before the old one went
    assert world.recorder.reserved(world.namespace) == [0, 1024, 3072, 2048]
    world.check()


def test_where_there_is_no_room_for_both_the_idle_old_one_goes_first(world):
    world.open_pool(memory="1Gi")
    world.model(minReplicas=1)
    world.reaches("Ready", "m-1")
    world.patch("m", {"worker": {"priority": 1}}, names.MODELS)
    assert world.reaches("Dead", "m-1")["reason"] == "Replaced"
    world.reaches("Ready", "m-2")
    world.check()


def test_times_are_changed_in_the_worker_that_is_there(world):
    world.open_pool()
    world.model(minReplicas=1)
    world.reaches("Ready", "m-1")
    world.patch("m", {"worker": {"evictAfterSeconds": 7}}, names.MODELS)
    until(lambda: (world.get("m-1") or {})["spec"].get("evictAfterSeconds") == 7, "the worker has it")
    assert world.worker_names() == ["m-1"]


@pytest.mark.parametrize(
    ("keep_alive", "goes"),
    [pytest.param(0, True, id="let-go"), pytest.param(-1, False, id="for-as-long-as-may-be")],
)
def test_keep_alive_says_how_long_the_workers_stay(world, keep_alive, goes):
    after = 600 if goes else 1
    world.open_pool(idleTimeoutSeconds=1, evictAfterSeconds=after)
    world.model(maxReplicas=1)
    world.ask()
    world.reaches("Ready", "m-1")
    world.ask(keep_alive=keep_alive)
    until(lambda: world.model_status().get("keepAliveSeconds") == keep_alive, "it is written down")
    if goes:
        assert world.reaches("Dead", "m-1", seconds=40)["reason"] == "IdleEviction"
    else:
        until(lambda: world.model_status()["desiredReplicas"] == 0, "nobody asks any more", seconds=40)
        world.reaches("Idle", "m-1")
        time.sleep(after + 2)  # the maintenance pass has looked at it more than once
        assert world.status("m-1")["state"] == "Idle"
    world.check()


def test_two_models_that_do_not_fit_together_take_turns_and_not_too_fast(world):
    """Whoever has come stays for the pool's ``minResidencySeconds``, however much the other one is wanted."""
    world.open_pool(memory="1Gi", idleTimeoutSeconds=0, evictAfterSeconds=600, minResidencySeconds=20)
    for name in ("a", "b"):
        world.model(name)
    world.ask("a")
    world.was("Ready", "a-1")  # Idle at once, as the pool has it
    until(lambda: (world.ask("b"), world.status("a-1").get("state") == "Dead")[1], "a makes room", seconds=60)
    status = world.status("a-1")
    assert status["reason"] == "RoomEviction"
    moved = {each["to"]: datetime.fromisoformat(each["time"]) for each in status["transitions"]}
    assert (moved["Evicting"] - moved["Ready"]).total_seconds() >= 19
    world.was("Ready", "b-1")
    world.check()


def test_an_autoscaler_has_its_say_through_the_scale(world):
    """The cluster's own HorizontalPodAutoscaler: what it wants at least needs no metrics."""
    world.open_pool()
    world.model(maxReplicas=3, replicas=1)
    world.reaches("Ready", "m-1")
    target = {"apiVersion": names.API_VERSION, "kind": names.MODEL, "name": "m"}
    spec = {"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 3}
    body = {"metadata": {"name": "m"}, "spec": spec}
    client.AutoscalingV2Api(world.api).create_namespaced_horizontal_pod_autoscaler(world.namespace, body)
    until(lambda: world.worker_names() == ["m-1", "m-2"], "the autoscaler's second worker", 60)
    assert (world.get("m", names.MODELS) or {})["spec"]["replicas"] == 2
    world.reaches("Ready", "m-2")
    world.check()


def test_a_model_takes_its_workers_with_it(world):
    world.open_pool()
    world.model(minReplicas=2, maxReplicas=2)
    for name in ("m-1", "m-2"):
        world.reaches("Ready", name)
    world.delete("m", names.MODELS)
    for name in ("m-1", "m-2"):
        world.vanishes(name)
    until(world.settled, "all is given back")
    world.check()
