"""Our definitions are deleted under a running operator, and made again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config

from cluster.control_plane import ControlPlane
from control_plane.operator_runs.process import OperatorProcess
from control_plane.operator_runs.site import define, install, until
from modelpool_operator.api import names

pytestmark = pytest.mark.control_plane

POOL = {"memory": "8Gi"}
WORKER = {"pool": "p", "memory": "1Gi", "model": {"name": "m", "capability": "text-embedding", "source": "file:///m"}}
KINDS = {
    names.MODEL_POOLS: (names.MODEL_POOL, "p", POOL),
    names.MODEL_WORKERS: (names.MODEL_WORKER, "w", WORKER),
    names.MODELS: (names.MODEL, "m", {"worker": WORKER}),
}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[tuple[ControlPlane, client.ApiClient]]:
    """A control plane without nodes, of its own: nobody else could work without definitions."""
    with (
        ControlPlane(tmp_path / "state") as cluster,
        config.new_client_from_config(str(cluster.kubeconfig)) as api,
    ):
        install(api)
        yield cluster, api


def has_a_reservation(api: client.ApiClient) -> None:
    """Make a pool and a worker; wait until the ledger holds it and its pod waits for a node."""
    objects = client.CustomObjectsApi(api)
    for plural, (kind, name, spec) in KINDS.items():
        body = {"apiVersion": names.API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
        objects.create_namespaced_custom_object(names.GROUP, names.VERSION, "default", plural, body)

    def read(plural: str, name: str) -> dict[str, Any]:
        where = (names.GROUP, names.VERSION, "default", plural, name)
        found: dict[str, Any] = objects.get_namespaced_custom_object(*where).get("status") or {}
        return found

    until(lambda: read(names.MODEL_WORKERS, "w").get("podUID"), "the worker has its pod", 40)
    assert len(read(names.MODEL_POOLS, "p")["ledger"]) == 1


def delete_definitions(api: client.ApiClient) -> None:
    """Delete them and wait until they are gone, with all objects of their kinds."""
    extensions = client.ApiextensionsV1Api(api)
    for plural in KINDS:
        extensions.delete_custom_resource_definition(f"{plural}.{names.GROUP}")

    def gone() -> bool:
        left = {each.metadata.name for each in extensions.list_custom_resource_definition().items}
        return not left & {f"{plural}.{names.GROUP}" for plural in KINDS}

    until(gone, "the definitions are gone", 60)


def test_deleted_definitions_take_their_workers_along_and_the_next_operator_waits_for_new_ones(api, tmp_path):
    """Finalizers hold nothing up. The operator ends with a sentence and without a stack: its watches are gone."""
    cluster, client_ = api
    with OperatorProcess(tmp_path, cluster.kubeconfig) as operator:
        has_a_reservation(client_)
        delete_definitions(client_)
        assert not client.CoreV1Api(client_).list_namespaced_pod("default").items
        until(lambda: not operator.running, "the operator has ended", 60)
        assert operator.exit_code == 1
        assert "a watch cannot go on" in operator.log.read_text()

        operator.start()
        until(lambda: "crds.missing" in operator.log.read_text(), "it waits for the definitions")
        define(client_)
        has_a_reservation(client_)
        assert operator.running
    # what kopf says of the watches that ended, one line each
    operator.assert_clean("has failed|will retry|never retrieved")
