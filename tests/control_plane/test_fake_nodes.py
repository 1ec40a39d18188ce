"""Nodes played by kwok, and faults of the API server: for tests of many pods and of lost watches."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kubernetes import client, config

from cluster.control_plane import ControlPlane, kwok_node

pytestmark = pytest.mark.control_plane

GPU = "nvidia.com/gpu"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("kwok") / "state", kwok=True) as running:
        yield running


@pytest.fixture
def core(plane: ControlPlane) -> Iterator[client.CoreV1Api]:
    with config.new_client_from_config(str(plane.kubeconfig)) as api:
        yield client.CoreV1Api(api)


def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)
    return value


def pod(name: str, gpus: int) -> dict[str, Any]:
    container = {"name": "c", "image": "localhost/none", "resources": {"limits": {GPU: str(gpus)}}}
    return {"metadata": {"name": name}, "spec": {"containers": [container], "terminationGracePeriodSeconds": 0}}


def test_pods_on_a_fake_node_run_at_loopback_addresses_and_gpus_are_counted(core):
    core.create_node(kwok_node("fake", 0, **{GPU: "4"}))
    core.create_namespaced_pod("default", pod("first", 3))
    running = until(lambda: (p := core.read_namespaced_pod("first", "default")).status.phase == "Running" and p)
    assert running.status.pod_ip.startswith("127.100.0.")
    core.create_namespaced_pod("default", pod("second", 2))
    scheduled = until(lambda: core.read_namespaced_pod("second", "default").status.conditions)
    assert f"Insufficient {GPU}" in scheduled[0].message
    core.delete_namespaced_pod("first", "default")
    until(lambda: core.read_namespaced_pod("second", "default").status.phase == "Running")


def test_a_killed_api_server_comes_back_with_everything_at_the_same_address(plane, core):
    core.create_namespaced_config_map("default", {"metadata": {"name": "kept"}, "data": {"key": "value"}})
    before = plane.url
    plane.restart_api_server()
    assert plane.url == before
    # The old connection is gone; the client makes a new one.
    assert core.read_namespaced_config_map("kept", "default").data == {"key": "value"}
