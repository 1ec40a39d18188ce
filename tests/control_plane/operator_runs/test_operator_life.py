"""Lives of workers under the real operator, on a real API server, with real lifecycle ports and a played kubelet."""

import pytest

from control_plane.operator_runs.kubelet import BROKEN
from control_plane.operator_runs.site import until

pytestmark = [pytest.mark.control_plane, pytest.mark.usefixtures("operator")]


def test_a_whole_life_is_told_state_by_state_and_charged_exactly(world):
    world.open_pool(idleTimeoutSeconds=1, evictAfterSeconds=2)
    world.worker()
    status = world.reaches("Ready")
    assert status["endpoint"] == f"http://w.{world.namespace}:8080"
    assert status["mirrored"]["bootID"] == world.machine().boot_id
    assert world.core.read_namespaced_service("w", world.namespace).spec.ports[0].port == 8080
    world.on_machine(lambda machine: machine.admit())
    assert world.reaches("Processing")["reason"] == "RequestAdmitted"
    world.on_machine(lambda machine: machine.done())
    status = world.reaches("Dead")
    assert status["reason"] == "IdleEviction"
    assert world.states() == ["Spawning", "Loading", "Ready", "Processing", "Ready", "Idle", "Evicting", "Dead"]
    assert [entry["to"] for entry in status["transitions"]] == world.states()[1:]
    assert world.recorder.reserved(world.namespace) == [0, 1024, 0]
    assert world.settled()
    assert world.pool_status()["evicted"] == {"IdleEviction": 1}
    assert "ledgerRepairs" not in world.pool_status()
    story = ["Accepted", "ContainerStarted", "ModelLoaded", "IdleEviction", "IdleEviction"]
    until(lambda: [reason for _, reason in world.events()] == story, "the Events")
    world.check()


def test_a_request_that_lands_in_the_instant_of_the_eviction_wins(world):
    """The operator asks because the worker is unused; before the worker decides it has admitted a request."""
    world.pool(idleTimeoutSeconds=1, evictAfterSeconds=1)
    world.worker(source="file:///slow")
    world.reaches("Loading")
    asked = []

    def interpose(machine):
        decide = machine.evict

        def evict(request):
            if not asked:
                machine.admit()
            asked.append(decide(request))
            return asked[-1]

        machine.evict = evict

    world.on_machine(interpose)
    world.load()
    until(lambda: asked, "the operator asks")
    assert asked == [False]
    assert world.reaches("Processing")["state"] == "Processing"
    assert len(world.pods()) == 1
    world.on_machine(lambda machine: machine.done())
    assert world.reaches("Dead")["reason"] == "IdleEviction"
    # refused first, agreed to in the end; nobody asks a worker that is busy
    assert asked[-1]
    assert "Processing" in world.states()
    world.check()


def test_a_crash_loop_ends_as_failed_gives_its_room_back_once_and_the_next_one_runs(world):
    world.pool(memory="1Gi", restartLimit=2)
    world.worker(source="file:///crash")
    until(lambda: world.ledger(), "the reservation")
    world.worker("next")
    status = world.reaches("Failed")
    assert status["reason"] == "CrashLoopBackOff"
    assert "3 times, more than the limit of 2" in status["message"]
    assert (status["lastFailure"]["exitCode"], status["lastFailure"]["message"]) == (1, BROKEN)
    world.reaches("Ready", "next")
    assert world.reaches("Dead")["reason"] == "CrashLoopBackOff"
    assert world.states() == ["Spawning", "Loading", "Failed", "Dead"]
    assert world.recorder.reserved(world.namespace)[-2:] in ([0, 1024], [1024])
    assert [entry["name"] for entry in world.ledger().values()] == ["next"]
    assert world.pool_status()["evicted"] == {"CrashLoopBackOff": 1}
    until(lambda: ("Warning", "CrashLoopBackOff") in world.events(), "the warning")
    world.check()


def test_a_model_that_can_never_load_fails_at_once(world):
    world.open_pool()
    world.worker(source="file:///never")
    status = world.reaches("Failed")
    assert (status["reason"], status["lastFailure"]["exitCode"]) == ("ModelLoadFailed", 78)
    assert status["lastFailure"]["message"] == BROKEN
    world.reaches("Dead")
    assert world.recorder.reserved(world.namespace) == [0, 1024, 0]
    until(world.settled, "all is given back")
    world.check()


@pytest.mark.parametrize(
    ("source", "limits", "reason", "states"),
    [
        pytest.param(
            "file:///stuck",
            {"scheduleDeadlineSeconds": 2},
            "ScheduleDeadlineExceeded",
            ["Spawning", "Failed", "Dead"],
            id="container-never-starts",
        ),
        pytest.param(
            "file:///no-image",
            {"scheduleDeadlineSeconds": 2},
            "ImagePullError",
            ["Spawning", "Failed", "Dead"],
            id="image-never-comes",
        ),
        pytest.param(
            "file:///slow",
            {"loadDeadlineSeconds": 2},
            "LoadDeadlineExceeded",
            ["Spawning", "Loading", "Failed", "Dead"],
            id="load-never-ends",
        ),
    ],
)
def test_deadlines_end_what_does_not_come_on_and_give_the_room_back(world, source, limits, reason, states):
    world.open_pool(**limits)
    world.worker(source=source)
    status = world.reaches("Dead")
    assert status["reason"] == reason
    assert world.states() == states
    assert world.recorder.reserved(world.namespace) == [0, 1024, 0]
    assert {each["type"]: each["status"] for each in status["conditions"]}["Stalled"] == "True"
    until(world.settled, "all is given back")
    world.check()


def test_a_restarted_container_loads_again_and_serves(world):
    world.pool()
    world.worker()
    first = world.reaches("Ready")["mirrored"]["bootID"]
    world.crash(exit_code=137)
    until(lambda: world.status()["mirrored"]["bootID"] != first, "the new process is mirrored")
    status = world.reaches("Ready")
    assert world.states() == ["Spawning", "Loading", "Ready", "Loading", "Ready"]
    assert status["restarts"] == 1
    assert status["lastFailure"]["exitCode"] == 137
    assert world.recorder.reserved(world.namespace)[-1] == 1024
    world.check()


def test_shutdown_while_processing_lets_the_request_end(world):
    world.pool(drainTimeoutSeconds=60)
    world.worker()
    world.reaches("Ready")
    world.on_machine(lambda machine: machine.admit())
    world.reaches("Processing")
    world.patch("w", {"shutdown": True})
    world.reaches("Evicting")
    assert world.on_machine(lambda machine: (machine.state, machine.pending)) == ("Evicting", 1)
    until(lambda: world.pods()[0].metadata.deletion_timestamp, "the pod is being deleted")
    assert world.ledger()
    world.on_machine(lambda machine: machine.done())
    assert world.reaches("Dead")["reason"] == "Shutdown"
    assert world.states()[-3:] == ["Processing", "Evicting", "Dead"]
    assert world.settled()
    world.check()


@pytest.mark.parametrize("source", ["file:///serve", "file:///slow"], ids=["ready", "loading"])
def test_a_pod_deleted_by_somebody_else_is_never_made_again(world, source):
    world.pool()
    world.worker(source=source)
    world.reaches("Ready" if source == "file:///serve" else "Loading")
    (pod,) = world.pods()
    world.core.delete_namespaced_pod(pod.metadata.name, world.namespace)
    assert world.reaches("Dead")["reason"] == "PodTerminating"
    assert world.states()[-2:] == ["Evicting", "Dead"]
    until(world.settled, "all is given back")
    assert len({each.obj["metadata"]["uid"] for each in world.recorder.of(world.namespace, "pod")}) == 1
    world.check()


@pytest.mark.parametrize(
    ("source", "end"), [("file:///serve", "Dead"), ("file:///slow", "Failed")], ids=["ready", "loading"]
)
def test_a_pod_that_is_gone_without_a_word_is_a_pod_lost(world, source, end):
    """Force-deleted: no operator sees it terminating."""
    world.pool(failedRetentionSeconds=60)
    world.worker(source=source)
    world.reaches("Ready" if source == "file:///serve" else "Loading")
    (pod,) = world.pods()
    world.core.delete_namespaced_pod(pod.metadata.name, world.namespace, grace_period_seconds=0)
    assert world.reaches(end)["reason"] == "PodLost"
    until(world.settled, "all is given back")
    world.check()


def test_a_worker_that_does_not_answer_any_more_is_ended_by_its_misses(world):
    world.pool(healthCheck={"periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 1})
    world.worker()
    world.reaches("Ready")
    world.hang_up()
    status = world.reaches("Dead", seconds=40)
    assert status["reason"] == "HealthCheckFailed"
    assert "3 pings in a row failed" in status["transitions"][-2]["message"]
    assert world.states()[-2:] == ["Evicting", "Dead"]
    until(world.settled, "all is given back")
    world.check()


def test_a_foreign_service_of_the_workers_name_is_never_adopted_and_said(world):
    ports = [{"port": 80}]
    foreign = world.core.create_namespaced_service(
        world.namespace, {"metadata": {"name": "w"}, "spec": {"ports": ports, "selector": {"app": "theirs"}}}
    )
    world.pool()
    world.worker()
    status = world.reaches("Ready")
    until(lambda: ("Warning", "ServiceNameTaken") in world.events(), "the warning")
    now = world.core.read_namespaced_service("w", world.namespace)
    assert now.metadata.resource_version == foreign.metadata.resource_version
    assert "endpoint" not in status
    world.delete()
    world.vanishes()
    assert world.core.read_namespaced_service("w", world.namespace).metadata.uid == foreign.metadata.uid
    world.check()


def test_a_worker_without_service_is_reached_at_its_pod(world):
    world.pool()
    world.worker(service=False)
    status = world.reaches("Ready")
    assert status["endpoint"] == f"http://{world.played().ip}:8080"
    assert not [each for each in world.core.list_namespaced_service(world.namespace).items if each.metadata.name == "w"]
    world.check()
