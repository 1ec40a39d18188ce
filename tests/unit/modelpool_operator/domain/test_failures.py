"""What a pod's state says about its worker's end."""

import pytest

from modelpool_operator.domain.failures import describe_end, last_failure, unexpected_exit, waiting_reason
from unit.modelpool_operator.domain.scenes import NOW, container, pod

UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes: no gpu"}


@pytest.mark.parametrize(
    ("of", "reason", "sentence"),
    [
        pytest.param(
            pod(container(waiting="ErrImagePull", said="not found")),
            "ImagePullError",
            "cannot be pulled (ErrImagePull): not found",
            id="image",
        ),
        pytest.param(pod(container(waiting="InvalidImageName")), "ImagePullError", "(InvalidImageName)", id="name"),
        pytest.param(
            pod(container(waiting="CreateContainerError", said="no such file")),
            "ConfigError",
            "cannot be created (CreateContainerError): no such file",
            id="create",
        ),
        pytest.param(
            pod(
                status={"initContainerStatuses": [{"name": "i", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}
            ),
            "ConfigError",
            "init container i: CrashLoopBackOff",
            id="init-container",
        ),
        pytest.param(
            pod(scheduled=False, conditions=(UNSCHEDULABLE,)), "Unschedulable", "0/1 nodes: no gpu", id="no-node"
        ),
        pytest.param(pod(scheduled=False), "PodPending", "waits for the scheduler", id="scheduler"),
        pytest.param(pod(container(waiting="ContainerCreating")), "PodPending", "on node node-1", id="node"),
    ],
)
def test_what_a_pod_waits_for(of, reason, sentence):
    found, message = waiting_reason(of)
    assert found == reason
    assert sentence in message


def test_a_sentence_is_cut_to_what_status_takes():
    _, message = waiting_reason(pod(container(waiting="ErrImagePull", said="x" * 5000)))
    assert len(message) == 1024


def end(code, reason="Error", words=""):
    return pod(container(waiting="CrashLoopBackOff", exit_code=code, exit_reason=reason, words=words)).container.last


def test_the_last_failure_is_the_workers_own_sentence_with_exit_code_and_time():
    found = last_failure(describe_end(end(1, words="config.json is not JSON")), NOW)
    assert found == {
        "reason": "ContainerRestarted",
        "message": "config.json is not JSON",
        "container": "worker",
        "time": "2026-01-02T03:04:04Z",
        "exitCode": 1,
    }


def test_without_a_sentence_of_its_own_the_last_failure_is_ours():
    assert "exit code 137" in last_failure(describe_end(end(137, "OOMKilled")), NOW)["message"]
    assert last_failure(describe_end(end(137, "OOMKilled")), NOW)["reason"] == "OOMKilled"


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        pytest.param(pod(container(exit_code=0, over=True)), True, id="ended-with-0"),
        pytest.param(pod(container(waiting="CrashLoopBackOff", exit_code=0)), True, id="ended-with-0-in-back-off"),
        pytest.param(pod(phase="Succeeded"), True, id="pod-succeeded"),
        pytest.param(pod(container(exit_code=143, over=True)), False, id="ended-by-signal"),
        pytest.param(pod(container(running=True, restarts=1, exit_code=0)), False, id="runs-again"),
        pytest.param(pod(container(running=True)), False, id="runs"),
        pytest.param(pod(), False, id="no-container-yet"),
    ],
)
def test_an_exit_0_that_nobody_asked_for(of, expected):
    assert (unexpected_exit(of) is not None) is expected


@pytest.mark.parametrize(
    ("box", "ends"),
    [
        (container(running=True), 0),
        (container(running=True, restarts=2, exit_code=1), 2),
        (container(waiting="CrashLoopBackOff", restarts=2, exit_code=1), 3),
        (container(exit_code=1, over=True), 1),
        (container(exit_code=0, over=True), 0),
    ],
    ids=["first", "third-runs", "third-ended", "first-ended", "told-to-end"],
)
def test_every_death_of_a_process_counts_once(box, ends):
    assert pod(box).container.failures == ends
