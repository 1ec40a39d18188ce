"""A control plane for the operator's runs alone: its operators may watch all of it."""

from collections.abc import Iterator

import pytest
from kubernetes import client, config

from cluster.control_plane import ControlPlane
from control_plane.operator_runs.process import OperatorProcess
from control_plane.operator_runs.site import Site, World, running_site


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("operator-runs")
    with (
        ControlPlane(folder / "state", audit=True) as cluster,
        config.new_client_from_config(str(cluster.kubeconfig)) as api,
        running_site(cluster, api, folder) as site,
    ):
        yield site


@pytest.fixture
def world(site: Site) -> Iterator[World]:
    """A fresh namespace; it is deleted afterwards, without waiting for its end."""
    world = site.world()
    yield world
    client.CoreV1Api(site.api).delete_namespace(world.namespace)


@pytest.fixture(scope="module")
def operator(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """One operator for a module's tests; at the end its log must be clean."""
    folder = tmp_path_factory.mktemp("operator")
    with OperatorProcess(folder, site.cluster.kubeconfig) as running:
        yield running
    running.assert_clean()
