"""Whoever may change everything in one namespace still harms nobody but himself.

No pod, Service, Secret or status of his moves anything in another, or makes the operator believe what is not so.
"""

import base64
import time
from typing import Any

import pytest
from kubernetes import client

from control_plane.operator_runs.site import until
from control_plane.security.scene import state_of
from modelpool_operator.api import names

pytestmark = pytest.mark.control_plane

MERGE = "application/merge-patch+json"
TOKEN = "modelpool-default-token"
#: Some of the operator's looks at everything (it sweeps once a second).
SWEEPS = 2.5


@pytest.fixture(scope="module", autouse=True)
def pool(scene):
    scene.mallory.pool()
    scene.mallory.worker("victim", "file:///stuck")
    until(lambda: scene.mine.ledger(), "a reservation of one's own")


def innocent_pod(name: str, labels: dict[str, str], owner: dict[str, Any] | None = None) -> dict[str, Any]:
    """A pod that the restricted profile admits and no scheduler takes up."""
    secure = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True}
    secure |= {"seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "metadata": {"name": name, "labels": labels, "ownerReferences": [owner] if owner else []},
        "spec": {
            "schedulerName": "nobody",
            "containers": [{"name": "worker", "image": "x", "securityContext": secure}],
        },
    }


def labels_of(worker: dict[str, Any]) -> dict[str, str]:
    """What the operator puts on the pod of a worker."""
    return {
        names.LABEL_MANAGED_BY: names.MANAGED_BY,
        names.LABEL_WORKER: worker["metadata"]["name"],
        names.LABEL_WORKER_UID: worker["metadata"]["uid"],
        names.LABEL_POOL: worker["spec"]["pool"],
    }


def refused(call: Any, *arguments: Any, status: int = 403, **options: Any) -> None:
    with pytest.raises(client.ApiException) as raised:
        call(*arguments, **options)
    assert raised.value.status == status, raised.value.body


@pytest.mark.parametrize("plural", [names.MODEL_WORKERS, names.MODEL_POOLS])
def test_a_status_is_not_the_users_to_write(plural, scene):
    where = (names.GROUP, names.VERSION, scene.mine.namespace, plural)
    name = {names.MODEL_WORKERS: "victim", names.MODEL_POOLS: "default"}[plural]
    forged = {"status": {"state": "Dead", "reserved": {"memoryMiB": 0, "gpus": 0}, "ledger": {}}}
    objects = scene.mallory.objects
    refused(objects.patch_namespaced_custom_object_status, *where, name, forged, _content_type=MERGE)
    refused(objects.replace_namespaced_custom_object_status, *where, name, forged)
    changed = objects.patch_namespaced_custom_object(*where, name, forged, _content_type=MERGE)
    assert changed["status"]
    for field, value in forged["status"].items():
        assert changed["status"].get(field) != value


@pytest.mark.parametrize("plural", [names.MODEL_WORKERS, names.MODEL_POOLS])
def test_the_user_reaches_no_object_of_the_neighbour(plural, scene):
    where = (names.GROUP, names.VERSION, scene.theirs.namespace, plural)
    for objects in (scene.mallory.objects, scene.editor.objects):
        refused(objects.list_namespaced_custom_object, *where)
        refused(objects.create_namespaced_custom_object, *where, {})
    refused(scene.mallory.core.list_namespaced_secret, scene.mine.namespace)
    refused(scene.editor.core.read_namespaced_secret, TOKEN, scene.theirs.namespace)


def test_of_two_pools_of_one_name_each_serves_its_own_namespace(scene):
    (entry,) = scene.mine.ledger().values()
    assert entry["name"] == "victim"
    assert [each["name"] for each in scene.theirs.ledger().values()] == ["neighbour"]
    (pod,) = [each for each in scene.mine.pods() if each.metadata.labels[names.LABEL_WORKER] == "victim"]
    assert pod.spec.node_selector is None, "the neighbour's pool has one"


FORGERIES = {
    "labels of the neighbour's worker": lambda theirs: ({"name": "forged"}, labels_of(theirs), None),
    "name and labels of his pod": lambda theirs: (
        {"name": f"neighbour-{theirs['metadata']['uid'][:5]}"},
        labels_of(theirs),
        None,
    ),
    "labels of nobody's worker": lambda _: (
        {"name": "nobodys"},
        {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_WORKER: "none", names.LABEL_WORKER_UID: "x"},
        None,
    ),
    "labels that make no sense": lambda _: (
        {"name": "senseless"},
        {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_POOL: ""},
        None,
    ),
    "the neighbour's worker as owner": lambda theirs: (
        {"name": f"neighbour-{theirs['metadata']['uid'][:5]}-2"},
        labels_of(theirs),
        {
            "apiVersion": names.API_VERSION,
            "kind": names.MODEL_WORKER,
            "name": "neighbour",
            "uid": theirs["metadata"]["uid"],
            "controller": True,
        },
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_pod_that_pretends_to_be_a_workers_is_nobodys(name, scene):
    """It is not charged, not taken for the worker's, and not removed: it is the user's own."""
    meta, labels, owner = FORGERIES[name](scene.theirs.get("neighbour"))
    ledger, theirs = scene.mine.ledger(), state_of(scene.theirs)
    core = scene.editor.core
    core.create_namespaced_pod(scene.mine.namespace, innocent_pod(meta["name"], labels, owner))
    time.sleep(SWEEPS)
    assert scene.mine.ledger() == ledger
    assert scene.mine.pool_status().get("ledgerRepairs", 0) == 0
    assert state_of(scene.theirs) == theirs
    if owner is None:  # the garbage collector takes one with an owner that is not there
        assert core.read_namespaced_pod(meta["name"], scene.mine.namespace).metadata.deletion_timestamp is None
        core.delete_namespaced_pod(meta["name"], scene.mine.namespace, grace_period_seconds=0)


def test_an_owner_in_another_namespace_costs_only_the_one_that_names_it(scene):
    """A worker that claims the neighbour's pool as its owner is garbage; its room is given back."""
    pool = scene.theirs.get("default", names.MODEL_POOLS)["metadata"]
    owner = {"apiVersion": names.API_VERSION, "kind": names.MODEL_POOL, "name": pool["name"], "uid": pool["uid"]}
    scene.mallory.worker("orphan", "file:///stuck")
    until(lambda: len(scene.mine.ledger()) == 2, "its reservation")
    scene.mallory.patch_meta("orphan", {"ownerReferences": [owner]})
    # the collector looks for new kinds every half a minute
    until(lambda: scene.mine.get("orphan") is None, "the orphan is collected", 90)
    until(lambda: len(scene.mine.ledger()) == 1, "its room is back")
    assert scene.theirs.get("default", names.MODEL_POOLS)["metadata"]["uid"] == pool["uid"]


def test_a_service_of_the_workers_name_is_left_alone_and_said(scene):
    ours = {"metadata": {"name": "shadow"}, "spec": {"ports": [{"port": 80}], "selector": {"app": "mine"}}}
    made = scene.editor.core.create_namespaced_service(scene.mine.namespace, ours)
    scene.mallory.worker("shadow")
    until(lambda: ("Warning", "ServiceNameTaken") in scene.mine.events("shadow"), "the warning")
    now = scene.mine.core.read_namespaced_service("shadow", scene.mine.namespace)
    assert now.metadata.resource_version == made.metadata.resource_version
    assert "endpoint" not in scene.mine.status("shadow")


def test_a_deleted_token_is_made_anew_and_the_neighbours_stays(scene):
    core, theirs = scene.editor.core, state_of(scene.theirs)
    old = core.read_namespaced_secret(TOKEN, scene.mine.namespace)
    core.delete_namespaced_secret(TOKEN, scene.mine.namespace)
    scene.mallory.worker("later")  # a pod could not start without it

    def anew() -> bool:
        found = scene.mine.core.list_namespaced_secret(scene.mine.namespace).items
        return any(each.metadata.name == TOKEN and each.metadata.uid != old.metadata.uid for each in found)

    until(anew, "another token")
    made = core.read_namespaced_secret(TOKEN, scene.mine.namespace)
    assert made.data["token"] != old.data["token"]
    assert state_of(scene.theirs) == theirs


HOSTILE_TOKENS = {
    "a header of its own": b"x\r\nHost: kubernetes.default",
    "no text": bytes(range(128, 256)),
    "half a megabyte": b"x" * (512 << 10),
    "none": b"",
}


@pytest.mark.parametrize("name", HOSTILE_TOKENS)
def test_a_token_that_is_none_holds_up_its_own_worker_and_no_deletion(name, scene):
    """Made by the user before the pool; the operator's log stays clean, see the end of the scene."""
    pool = "token-" + name.replace(" ", "-")
    content = base64.b64encode(HOSTILE_TOKENS[name]).decode()
    secret = {"metadata": {"name": f"modelpool-{pool}-token"}, "data": {"token": content}}
    scene.editor.core.create_namespaced_secret(scene.mine.namespace, secret)
    scene.mallory.pool(pool)
    scene.mallory.worker(pool, pool=pool)
    assert scene.mine.reaches("Loading", pool)
    time.sleep(1)
    assert scene.mine.status(pool)["state"] == "Loading"
    scene.mallory.delete(pool)
    scene.mine.vanishes(pool)


def test_a_pool_that_wants_what_pods_may_not_have_holds_up_only_its_workers(scene):
    """The pod is refused by the API server, and the worker says so; the rest of the namespace goes on."""
    scene.mallory.pool("odd", gpuResourceName="requests.example.com/gpu", runtimeClassName="none")
    scene.mallory.worker("odd", pool="odd", gpus=1)
    until(lambda: scene.mine.status("odd").get("reason") == "ConfigError", "the reason")
    assert "the API server refuses the pod" in scene.mine.status("odd")["message"]
    scene.mallory.worker("even")
    scene.mine.reaches("Ready", "even")
