"""What the demo applies is the example, with the model of this machine and short times."""

import json

import pytest
import yaml

from cluster import demo
from cluster.story import Story
from cluster.target import Target

TARGET = Target(
    title="a cluster",
    prefix=(),
    environment={},
    operator_image="localhost/modelpool/operator:1",
    worker_image="localhost/modelpool/worker:1",
    model_source="oci://localhost/modelpool/all-minilm-l6-v2:1",
    shell="make shell",
)


def test_only_the_times_and_the_source_of_the_example_are_changed(tmp_path):
    demo.resources("oci://localhost/model:1", tmp_path)
    written = json.loads((tmp_path / "kustomization.yaml").read_text())
    assert sorted(written["resources"]) == sorted(path.name for path in demo.EXAMPLES.glob("*.yaml"))
    changed = [entry["path"] for patch in written["patches"] for entry in json.loads(patch["patch"])]
    assert changed == [
        "/spec/idleTimeoutSeconds",
        "/spec/evictAfterSeconds",
        "/spec/minResidencySeconds",
        "/spec/model/source",
        "/spec/worker/model/source",
    ]
    named = {path.stem: yaml.safe_load(path.read_text())["metadata"]["name"] for path in demo.EXAMPLES.glob("*.yaml")}
    assert (named["worker"], named["model"]) == (demo.WORKER, demo.MODEL)
    for example in demo.EXAMPLES.glob("*.yaml"):
        assert (tmp_path / example.name).read_text() == example.read_text()


def test_the_asking_pod_asks_for_the_model_of_the_example_and_passes_the_restricted_standard():
    asked = f"http://{demo.WORKER}.{demo.NAMESPACE}:8080/v1/embeddings"
    pod = demo.asking_pod(TARGET, asked)["spec"]
    (container,) = pod["containers"]
    example = yaml.safe_load((demo.EXAMPLES / "worker.yaml").read_text())
    url, model, folder = container["command"][-3:]
    assert url == f"http://{example['metadata']['name']}.{demo.NAMESPACE}:8080/v1/embeddings"
    assert model == example["spec"]["model"]["name"]
    assert folder == "/model"
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    assert not pod["automountServiceAccountToken"]


def told(statuses, tmp_path):
    """A story over a program that prints these statuses and goes on running."""
    kubectl = tmp_path / "kubectl"
    lines = "\n".join(json.dumps(status) for status in statuses)
    kubectl.write_text(f"#!/bin/sh\ncat <<'END'\n{lines}\nEND\nexec sleep 60\n")
    kubectl.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    return Story(Target(**{**vars(TARGET), "environment": environment}), "here", "minilm")


def move(start, end, reason):
    return {"from": start, "to": end, "reason": reason}


LOADING = move("Spawning", "Loading", "ContainerStarted")
READY = move("Loading", "Ready", "ModelLoaded")
FAILED = {
    "state": "Failed",
    "message": "the load failed",
    "lastFailure": {"message": "model.safetensors is cut short"},
    "transitions": [LOADING, move("Loading", "Failed", "ModelLoadFailed")],
}


def test_every_move_is_told_once_also_when_several_come_together(tmp_path, capsys):
    statuses = [
        {"state": "Spawning"},
        {"state": "Ready", "transitions": [LOADING, READY]},
        {"state": "Ready", "transitions": [LOADING, READY], "pendingRequests": 0},
        {"state": "Idle", "transitions": [LOADING, READY, move("Ready", "Idle", "IdleTimeout")]},
    ]
    with told(statuses, tmp_path) as story:
        story.until("Ready", 30)
        story.until("Idle", 30)
    lines = [line.split(" s ", 1)[1].split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["Spawning"],
        ["Spawning", "→", "Loading", "ContainerStarted"],
        ["Loading", "→", "Ready", "ModelLoaded"],
        ["Ready", "→", "Idle", "IdleTimeout"],
    ]


def test_a_worker_that_fails_ends_the_wait_with_its_own_sentence(tmp_path):
    with told([FAILED], tmp_path) as story, pytest.raises(demo.ClusterError, match="cut short"):
        story.until("Ready", 30)


def test_a_state_that_does_not_come_is_told_with_the_one_that_is(tmp_path):
    status = {"state": "Spawning", "message": "needs 2048 MiB, 1024 MiB short"}
    with told([status], tmp_path) as story, pytest.raises(demo.ClusterError, match="Spawning, needs 2048 MiB"):
        story.until("Ready", 0.5)


def test_a_state_that_was_told_already_is_not_waited_for(tmp_path):
    with told(
        [{"state": "Loading", "transitions": [LOADING]}, {"state": "Ready", "transitions": [LOADING, READY]}], tmp_path
    ) as story:
        story.until("Ready", 30)
        story.until("Ready", 0)
