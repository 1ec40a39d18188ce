"""The local cluster itself: it comes up, survives what users do to it, and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import cgroups
from cluster.node_config import PAUSE_IMAGE
from cluster.processes import ProcessGroup, wait_gone
from cluster.real import Cluster

pytestmark = pytest.mark.e2e

NAME = "lifecycle"
TESTS = Path(__file__).parents[1]
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "holder"},
    "spec": {
        "containers": [
            {
                "name": "holder",
                "image": PAUSE_IMAGE,
                "imagePullPolicy": "IfNotPresent",
                "resources": {"limits": {"nvidia.com/gpu": "1"}},
                "volumeMounts": [{"name": "files", "mountPath": "/files"}],
            }
        ],
        "volumes": [{"name": "files", "image": {"reference": PAUSE_IMAGE}}],
        "terminationGracePeriodSeconds": 0,
    },
}


def traces() -> dict[str, list[str]]:
    """What of the cluster can be seen on the machine."""
    cluster = Cluster(NAME)
    words = (str(cluster.state), cluster.network.name, cluster.cgroup)
    commands = {path.parent.name: path for path in Path("/proc").glob("[0-9]*/cmdline")}
    processes = []
    for pid, path in commands.items():
        try:
            line = path.read_text().replace("\0", " ")
        except OSError:
            continue
        if any(word in line for word in words):
            processes.append(f"{pid} {line}")
    mounts = [
        line for line in Path("/proc/self/mountinfo").read_text().splitlines() if any(word in line for word in words)
    ]
    files = [str(path) for path in (cluster.state, cluster.network.path) if path.exists()]
    groups = [cluster.cgroup] if cgroups.exists(cluster.cgroup) else []
    return {"processes": processes, "mounts": mounts, "files": files, "control groups": groups}


NOTHING: dict[str, list[str]] = {"processes": [], "mounts": [], "files": [], "control groups": []}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    fresh = Cluster(NAME)
    fresh.down()
    yield fresh
    fresh.down()
    assert traces() == NOTHING


def run_pod(cluster: Cluster) -> None:
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(POD))
    cluster.kubectl("wait", "--for=condition=Ready", "pod/holder", "--timeout=60s")


def test_pods_run_and_every_process_may_die(cluster):
    cluster.up()
    cluster.set_gpus(1)
    run_pod(cluster)
    recorded = ProcessGroup(cluster.state).recorded()
    cluster.up()
    assert ProcessGroup(cluster.state).recorded() == recorded, "up on a running cluster changes nothing"
    for process in recorded.values():
        process.signal(signal.SIGKILL)
    assert wait_gone(recorded.values(), 10) == []
    assert not cluster.running()
    cluster.up()
    assert cluster.running()
    assert cluster.kubectl("get", "pods", "-o", "name") == ""


@pytest.mark.parametrize("reached", ["mounts", "etcd", "kube-apiserver", "coredns"])
def test_an_up_that_is_killed_half_way_is_cleared_by_the_next(cluster, reached):
    command = [sys.executable, "-m", "cluster", "up", "--name", NAME]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(TESTS)}, stderr=subprocess.DEVNULL) as killed:
        deadline = time.monotonic() + 60
        while reached not in ProcessGroup(cluster.state).recorded():
            assert time.monotonic() < deadline, f"{reached} was not started"
            time.sleep(0.005)
        killed.kill()
    assert cluster.exists()
    assert not cluster.running()
    cluster.up()
    assert "node1" in cluster.kubectl("get", "nodes")


def test_down_may_be_killed_and_said_again(cluster):
    cluster.up()
    (cluster.state / "ready.json").unlink()  # the first thing that down does
    ProcessGroup(cluster.state).stop("kubelet")
    assert not cluster.running()
    cluster.down()
    assert traces() == NOTHING
    cluster.down()
