"""Models and demand Leases of somebody who may change everything in one namespace."""

import pytest
from kubernetes import client

from control_plane.operator_runs.site import until
from control_plane.security.scene import user
from modelpool_operator.api import names

pytestmark = pytest.mark.control_plane

LEASES = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"]}


@pytest.fixture(scope="module", autouse=True)
def pool(scene):
    scene.mallory.open_pool()


def test_a_worker_that_has_the_name_of_a_models_next_one_is_left_alone(scene):
    """The Model takes the next number; the worker is not its own and does not count."""
    scene.mallory.worker("taken-1", "file:///stuck")
    scene.mallory.model("taken", minReplicas=1)
    scene.mine.reaches("Ready", "taken-2")
    assert scene.mine.model_status("taken")["replicas"] == 1
    assert "ownerReferences" not in (scene.mine.get("taken-1") or {})["metadata"]
    scene.mallory.delete("taken", names.MODELS)
    scene.mine.vanishes("taken-2")
    scene.mallory.delete("taken-1")
    scene.mine.vanishes("taken-1")


@pytest.mark.parametrize(
    ("name", "label"),
    [
        pytest.param("demand-theirs", "theirs", id="of-the-neighbours-name"),
        pytest.param("other", "theirs", id="of-another-name"),
        pytest.param("demand-", "", id="of-no-name"),
        pytest.param("demand-x", "y" * 63, id="of-two-names"),
    ],
)
def test_a_lease_wants_nothing_of_the_neighbours_models(name, label, scene, site):
    """The neighbour's Model of the same name stays cold."""
    if scene.theirs.get("theirs", names.MODELS) is None:
        scene.theirs.model("theirs")
    until(lambda: scene.theirs.model_status("theirs").get("conditions"), "the neighbour's Model is known")
    with user(site, f"leaser-{name}", scene.mine, [LEASES]) as api:
        leases = client.CoordinationV1Api(api)
        spec = {"renewTime": "2126-01-02T03:04:05.000001Z", "holderIdentity": "x", "leaseDurationSeconds": 1}
        body = {"metadata": {"name": name, "labels": {names.LABEL_DEMAND: label}}, "spec": spec}
        if name.endswith("-"):
            with pytest.raises(client.ApiException) as raised:
                leases.create_namespaced_lease(scene.mine.namespace, body)
            assert raised.value.status == 422
            return
        leases.create_namespaced_lease(scene.mine.namespace, body)
        leases.patch_namespaced_lease(name, scene.mine.namespace, {"spec": {"leaseDurationSeconds": 2}})
    # what the operator does for a Model of one's own, it has done after the Lease was seen
    scene.mallory.model(f"own-{label[:8]}-{len(name)}", minReplicas=1)
    scene.mine.reaches("Ready", f"own-{label[:8]}-{len(name)}-1")
    assert scene.theirs.model_status("theirs")["desiredReplicas"] == 0
    scene.mallory.delete(f"own-{label[:8]}-{len(name)}", names.MODELS)
    scene.mine.vanishes(f"own-{label[:8]}-{len(name)}-1")


def test_a_status_of_a_model_is_not_the_users_to_write(scene):
    scene.mallory.model("forged")
    until(lambda: scene.mine.model_status("forged").get("conditions"), "it is known")
    where = (names.GROUP, names.VERSION, scene.mine.namespace, names.MODELS, "forged")
    with pytest.raises(client.ApiException) as raised:
        scene.mallory.objects.patch_namespaced_custom_object_status(*where, {"status": {"serial": 9}})
    assert raised.value.status == 403
    scene.mallory.delete("forged", names.MODELS)
