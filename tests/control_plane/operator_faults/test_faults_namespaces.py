"""What is deleted or applied around the workers: their namespace, and the definitions of their kinds."""

from pathlib import Path

import pytest
from kubernetes import client

from control_plane.operator_runs.process import OperatorProcess
from control_plane.operator_runs.site import Site, until
from modelpool_operator.api import crd, names

pytestmark = pytest.mark.control_plane


def deleted_and_back(site: Site, folder: Path, *, watched_alone: bool) -> None:
    """Live in a namespace that is deleted around workers in several states, and again in its successor."""
    folder.mkdir()
    world = site.world()
    where = [world.namespace] if watched_alone else None
    with OperatorProcess(folder, site.cluster.kubeconfig, where, LEASE_NAME=world.namespace) as operator:
        world.pool(drainTimeoutSeconds=1)
        for name, source in (("ready", "file:///serve"), ("loading", "file:///slow"), ("starting", "file:///stuck")):
            world.worker(name, source)
        world.worker("failed", "file:///never")
        world.worker("waiting", memory="7Gi")
        world.reaches("Ready", "ready")
        world.reaches("Loading", "loading")
        until(lambda: world.status("starting").get("nodeName"), "starting has a node")
        world.reaches("Dead", "failed")
        until(lambda: world.status("waiting").get("reason"), "waiting waits")
        world.core.delete_namespace(world.namespace)

        def gone() -> bool:
            found = world.core.list_namespace(field_selector=f"metadata.name={world.namespace}").items
            return not found

        until(gone, "the namespace is gone", 60)
        world.check()
        world.core.create_namespace({"metadata": {"name": world.namespace}})
        world.pool("again")
        world.worker("again", pool="again")
        world.reaches("Ready", "again")
        assert [entry["name"] for entry in world.ledger("again").values()] == ["again"]
    operator.assert_clean()


@pytest.mark.parametrize("watched_alone", [False, True], ids=["all-watched", "watched-alone"])
def test_a_namespace_that_is_deleted_goes_with_all_its_workers_and_may_come_back(site, tmp_path, watched_alone):
    """Nothing of ours holds it up, whatever its workers were doing; made anew it works as any other."""
    deleted_and_back(site, tmp_path / "run", watched_alone=watched_alone)


def test_definitions_applied_again_change_nothing_for_the_workers_that_live(site, world, tmp_path):
    """Their watches end when a schema is others; nobody is restarted for it, and the next worker is born as ever."""
    extensions = client.ApiextensionsV1Api(site.api)
    with OperatorProcess(tmp_path, site.cluster.kubeconfig, [world.namespace], LEASE_NAME=world.namespace) as operator:
        world.pool(memory="8Gi")
        for name, source in (("ready", "file:///serve"), ("loading", "file:///slow")):
            world.worker(name, source)
        world.reaches("Ready", "ready")
        world.reaches("Loading", "loading")
        pods = {pod.metadata.uid for pod in world.pods()}
        for definition in crd.definitions().values():
            for text in ("as of the next version", None):
                schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
                changed = {**schema, "description": text or schema.get("description", "")}
                version = {**definition["spec"]["versions"][0], "schema": {"openAPIV3Schema": changed}}
                patch = {"spec": {**definition["spec"], "versions": [version]}}
                extensions.patch_custom_resource_definition(definition["metadata"]["name"], patch)
        world.load("loading")
        world.reaches("Ready", "loading")
        world.worker("new")
        world.reaches("Ready", "new")
        world.patch("ready", {"shutdown": True})
        assert world.reaches("Dead", "ready")["reason"] == "Shutdown"
        now = {pod.metadata.labels[names.LABEL_WORKER]: pod.metadata.uid for pod in world.pods()}
        assert set(now) == {"loading", "new"}
        assert now["loading"] in pods
        assert {entry["name"] for entry in world.ledger().values()} == {"loading", "new"}
        assert world.pool_status().get("ledgerRepairs", 0) == 0
        world.check()
    operator.assert_clean()
