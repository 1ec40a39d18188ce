"""Two clusters on one machine share nothing."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from cluster import cgroups, node_config
from cluster.host import ClusterError
from cluster.node_config import NodePaths
from cluster.real import Cluster

BIN = Path("/opt/bin")


def every_text(name):
    paths = NodePaths(Path("/state") / name)
    texts = [node_config.containerd(paths, BIN), node_config.pod_network(paths), node_config.kube_proxy(paths)]
    return [*texts, node_config.kubelet(paths, f"/modelpool-{name}"), node_config.coredns(paths)]


def test_no_file_is_written_outside_the_state_folder():
    allowed = ("/state/one", "/opt/bin", "/usr/lib/cni", "/opt/cni/bin", "/modelpool-one")
    for text in every_text("one"):
        for path in re.findall(r'["\s:/](/[a-z][a-z0-9./-]+)', text.replace("unix://", " ")):
            assert path.startswith(allowed), path


def test_configurations_of_two_clusters_differ_in_their_paths_only():
    for one, two in zip(every_text("one"), every_text("two"), strict=True):
        assert one.replace("/state/one", "/state/two").replace("modelpool-one", "modelpool-two") == two


def test_configurations_parse():
    paths = NodePaths(Path("/state/one"))
    containerd = tomllib.loads(node_config.containerd(paths, BIN))
    images = containerd["plugins"]["io.containerd.cri.v1.images"]
    assert images["pinned_images"]["sandbox"] == node_config.PAUSE_IMAGE
    assert json.loads(node_config.kubelet(paths, "/group"))["cgroupRoot"] == "/group"
    assert json.loads(node_config.pod_network(paths))["plugins"]


@pytest.mark.parametrize("name", ["", "Demo", "a/b", "..", "x" * 13, "demö", "a b"])
def test_a_name_that_could_lead_elsewhere_is_refused(name):
    with pytest.raises(ClusterError, match="such as demo"):
        Cluster(name)


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        pytest.param(["cgroup.controllers"], ["pods"], id="version 2"),
        pytest.param(["cpu/", "memory/"], ["cpu/pods", "memory/pods"], id="version 1"),
    ],
)
def test_a_group_stands_in_every_hierarchy(tmp_path, folders, expected):
    for each in folders:
        (tmp_path / each).mkdir() if each.endswith("/") else (tmp_path / each).touch()
    assert cgroups.folders("pods", tmp_path) == [tmp_path / each for each in expected]
