"""Accelerators are counted by the scheduler and by the pool; what does not fit waits and says so."""

from collections.abc import Iterator

import pytest
from kubernetes import client

from e2e.team import Team
from e2e.watchers import PODS, WORKERS

pytestmark = pytest.mark.e2e

GPU = "nvidia.com/gpu"


@pytest.fixture
def four_gpus(api: client.ApiClient, node: client.V1Node) -> Iterator[None]:
    """Let the node offer four accelerators for the length of a test; they are counted, there are none."""
    core = client.CoreV1Api(api)

    def offer(count: str | None) -> None:
        body = {"status": {"capacity": {GPU: count}, "allocatable": {GPU: count}}}
        core.patch_node_status(node.metadata.name, body)

    before = (node.status.allocatable or {}).get(GPU)
    offer("4")
    yield
    offer(before)


@pytest.mark.usefixtures("four_gpus")
def test_gpu_node(team: Team):
    """Of two workers with 3 of 4 GPUs each the second waits as Spawning, says why, and runs when the first is gone."""
    team.pool(memory="8Gi", gpus=8, restartLimit=20)
    resources = {"resources": {"limits": {"memory": "1Gi"}}}
    team.worker("first", "hf://org/paced-300s", gpus=3, template=resources)
    team.recorder.until_state("first", "Loading")
    team.worker("second", gpus=3, restartLimit=0, template=resources)

    waiting = team.recorder.until(
        WORKERS, "second", lambda seen: seen.status.get("reason") == "Unschedulable", "waits for a node"
    )
    assert waiting.status["state"] == "Spawning"
    assert f"Insufficient {GPU}" in waiting.status["message"]
    assert waiting.status.get("nodeName", "") == ""
    scheduled = next(each for each in waiting.status["conditions"] if each["type"] == "PodScheduled")
    assert scheduled["status"] == "False"
    assert team.pool_status()["reserved"] == {"memoryMiB": 4096, "gpus": 6}
    assert "Unschedulable" in team.kubectl("get", "mw", "second")

    team.delete("first")
    team.recorder.until_gone(WORKERS, "first")
    started = team.recorder.until_state("second", "Loading")
    assert started.status["nodeName"]
    pod = team.recorder.latest(PODS, team.pod_name("second"))
    assert pod["spec"]["containers"][0]["resources"]["limits"][GPU] == "3"

    # this machine has no accelerator: the worker says the truth instead of serving from the CPU
    failed = team.recorder.until_state("second", "Failed")
    assert "GPU" in failed.status["lastFailure"]["message"] or "CUDA" in failed.status["lastFailure"]["message"]
    assert team.recorder.states("second")[:3] == ["Spawning", "Loading", "Failed"]
