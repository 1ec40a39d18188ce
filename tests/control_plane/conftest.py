"""A real control plane for the whole session, a namespace of its own for each test."""

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from kubernetes import client, config, dynamic

from cluster.control_plane import ControlPlane
from control_plane.operator_runs.process import OperatorProcess
from control_plane.operator_runs.site import Site, World, running_site

Manifest = dict[str, Any]
Apply = Callable[..., list[Manifest]]

FIELD_MANAGER = "modelpool-tests"


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """API server, controller-manager and scheduler without nodes; that it does not start is a failure, not a skip."""
    with ControlPlane(tmp_path_factory.mktemp("control-plane") / "state", audit=True) as running:
        yield running


@pytest.fixture(scope="session")
def admin(control_plane: ControlPlane) -> Iterator[client.ApiClient]:
    """The official sync client as administrator, for the whole session."""
    with config.new_client_from_config(str(control_plane.kubeconfig)) as api:
        yield api


@pytest.fixture(scope="session")
def discovery(admin: client.ApiClient, tmp_path_factory: pytest.TempPathFactory) -> dynamic.DynamicClient:
    """Finds the endpoint of any kind, of one whose CRD has just been applied too."""
    return dynamic.DynamicClient(admin, cache_file=str(tmp_path_factory.mktemp("discovery") / "cache.json"))


@pytest.fixture
def namespace(admin: client.ApiClient) -> Iterator[str]:
    """The name of a fresh namespace; it is deleted afterwards, without waiting for its end."""
    core = client.CoreV1Api(admin)
    name = f"test-{uuid.uuid4().hex[:10]}"
    core.create_namespace({"metadata": {"name": name}})
    yield name
    core.delete_namespace(name)


@pytest.fixture
def kube(admin: client.ApiClient, namespace: str) -> client.ApiClient:
    """The client of a test that has a namespace of its own; wrap it: ``CoreV1Api(kube)``."""
    assert namespace
    return admin


@pytest.fixture
def apply(discovery: dynamic.DynamicClient, namespace: str) -> Apply:
    """``apply(manifest)``: server-side apply of YAML text (several documents too), a dict or a list of dicts.

    Namespaced objects without a namespace go to the test's own. Returns the objects as the API server
    has them; raises `kubernetes.client.ApiException` when it refuses one.
    """

    def apply(manifests: str | Manifest | list[Manifest], **options: Any) -> list[Manifest]:
        if isinstance(manifests, str):
            documents = [each for each in yaml.safe_load_all(manifests) if each]
        else:
            documents = manifests if isinstance(manifests, list) else [manifests]
        applied = []
        for document in documents:
            resource = discovery.resources.get(api_version=document["apiVersion"], kind=document["kind"])
            home = document["metadata"].get("namespace", namespace) if resource.namespaced else None
            done = discovery.server_side_apply(
                resource, body=document, namespace=home, **{"field_manager": FIELD_MANAGER, **options}
            )
            applied.append(done.to_dict())
        return applied

    return apply


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A control plane for the operator's runs alone, with a played node: their operators may watch all of it."""
    folder = tmp_path_factory.mktemp("operator-runs")
    with (
        # the plugin wants rights for owner references that some clusters want: ours need none
        ControlPlane(folder / "state", audit=True, admission=["OwnerReferencesPermissionEnforcement"]) as cluster,
        config.new_client_from_config(str(cluster.kubeconfig)) as api,
        running_site(cluster, api, folder) as site,
    ):
        yield site


@pytest.fixture(scope="module", autouse=True)
def swept(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a module leaves on the operators' control plane is gone before the next one begins."""
    yield
    if any("site" in item.fixturenames for item in request.session.items if item.module is request.module):
        request.getfixturevalue("site").sweep()


@pytest.fixture
def world(site: Site) -> Iterator[World]:
    """A fresh namespace on the operators' control plane; it is deleted afterwards, without waiting for its end."""
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
