"""A ModelWorker gets no more than its fields say: hostile ones are refused, held back, or come out as innocent pods."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import client

from control_plane.crds.resources import Resources, env, model, template, worker
from control_plane.operator_runs.site import World, until
from control_plane.security import expected
from control_plane.security.attacks import REFUSED_POOLS, REFUSED_WORKERS, UNKNOWN
from control_plane.security.scene import Scene
from modelpool_operator.api import names

pytestmark = pytest.mark.control_plane

Manifest = dict[str, Any]
SMALL = {"memory": "1Mi", "service": False}
HUB = model(source="hf://org/name")["model"]


def small(name: str, **spec: Any) -> Manifest:
    return worker(name, **{**SMALL, **spec})


def with_meta(manifest: Manifest, **meta: Any) -> Manifest:
    return {**manifest, "metadata": {**manifest["metadata"], **meta}}


#: Without those that mean something there.
ELSEWHERE = {field: value for field, value in UNKNOWN.items() if field not in ("name", "priority")}
CONTROL_PLANE = {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}
#: Accepted where unknown fields are dropped; the pod is that of a worker without a template.
DISGUISED = {
    **{f"template {field}": small(f"u{n}", template={field: UNKNOWN[field]}) for n, field in enumerate(UNKNOWN)},
    "all of it beside the template": small("beside", template=UNKNOWN, **ELSEWHERE),
    "in the model": small("in-model", model={**worker()["spec"]["model"], "trustRemoteCode": True, **ELSEWHERE}),
    "a status of its own": {**small("own-status"), "status": {"state": "Ready", "podName": "x", "podUID": "y"}},
    "our labels and annotations": with_meta(
        small("marked"),
        labels={names.LABEL_WORKER_UID: "x", names.LABEL_POOL: "elsewhere", names.LABEL_MANAGED_BY: names.MANAGED_BY},
        annotations={names.ANNOTATION_GATE_LIFTED: "2020-01-01T00:00:00Z", "kopf.zalando.org/last-handled": "{}"},
    ),
    "our finalizer and another": with_meta(small("held"), finalizers=[names.WORKER_FINALIZER, "example.com/mine"]),
    "the name of a system service": small("kubernetes"),
}
#: Accepted, and never given a pod: reason and sentence of its status.
HELD_BACK = {
    "a pool of another namespace": (small("strayed", pool="elsewhere"), "PoolNotFound", "no ModelPool elsewhere"),
    "every taint": (
        small("everywhere", **template(tolerations=[{"operator": "Exists"}])),
        "ConfigError",
        "does not tolerate every taint",
    ),
    "the control plane's taint": (
        small("above", **template(tolerations=[CONTROL_PLANE])),
        "ConfigError",
        "does not tolerate node-role.kubernetes.io/control-plane",
    ),
    "a priority": (
        small("urgent", **template(priorityClassName="urgent")),
        "ConfigError",
        "priorityClassName urgent is not allowed",
    ),
    "more than the pool": (small("greedy", memory="1Pi"), "ExceedsPool", "can never fit"),
}


@pytest.fixture(scope="module")
def made(scene: Scene) -> Iterator[dict[str, Manifest]]:
    """All that is accepted, by its id, as the API server has it: made together, looked at one by one."""
    scene.mallory.pool(idleTimeoutSeconds=300, drainTimeoutSeconds=60, nodeSelector=expected.NODE_SELECTOR)
    resources = Resources(scene.mallory.api, scene.mine.namespace, names.MODEL_WORKERS)
    wanted = {**DISGUISED, **{name: each[0] for name, each in HELD_BACK.items()}}
    yield {name: resources.create(body) for name, body in wanted.items()}
    resources.patch("held", {"shutdown": True})
    scene.mine.patch_meta("held", {"finalizers": []})


def pod_of(world: World, made: Manifest) -> Manifest:
    """The worker's pod, all of its JSON."""
    name = f"{made['metadata']['name']}-{made['metadata']['uid'][:5]}"

    def found() -> Manifest | None:
        try:
            answer = world.core.read_namespaced_pod(name, world.namespace, _preload_content=False)
        except client.ApiException as error:
            if error.status == 404:
                return None
            raise
        pod: Manifest = json.loads(answer.data)
        return pod

    pod = until(found, f"the pod {name}", 60)
    assert pod is not None
    return pod


@pytest.mark.parametrize("name", DISGUISED)
def test_the_pod_is_an_innocent_one_in_every_field(name, scene, made):
    pod, mine = pod_of(scene.mine, made[name]), made[name]
    meta, spec = pod["metadata"], pod["spec"]
    written = {"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "annotations"}
    assert {key: value for key, value in meta.items() if key not in written} == expected.metadata(mine)
    assert set(meta.get("annotations", {})) <= {names.ANNOTATION_GATE_LIFTED}
    assert spec.pop("schedulingGates", [{"name": names.QUOTA_GATE}]) == [{"name": names.QUOTA_GATE}]
    assert spec == expected.spec(mine)


@pytest.mark.parametrize("name", HELD_BACK)
def test_what_the_pool_does_not_allow_gets_no_pod_and_a_reason(name, scene, made):
    _, reason, sentence = HELD_BACK[name]
    worker_name = made[name]["metadata"]["name"]
    until(lambda: scene.mine.status(worker_name).get("reason") == reason, f"{worker_name} {reason}", 60)
    assert sentence in scene.mine.status(worker_name)["message"]
    assert not [pod for pod in scene.mine.pods() if pod.metadata.labels.get(names.LABEL_WORKER) == worker_name]


@pytest.mark.parametrize("field", UNKNOWN)
def test_unknown_fields_are_refused_where_the_client_asks_for_it_as_kubectl_does(field, scene):
    resources = Resources(scene.mallory.api, scene.mine.namespace, names.MODEL_WORKERS)
    with pytest.raises(client.ApiException) as raised:
        resources.create(small("strict", template={field: UNKNOWN[field]}), field_validation="Strict")
    assert f'unknown field "spec.template.{field}"' in json.loads(raised.value.body)["message"]


@pytest.mark.parametrize(
    ("plural", "manifest", "sentence"),
    [
        *[pytest.param(names.MODEL_WORKERS, *each, id=name) for name, each in REFUSED_WORKERS.items()],
        *[pytest.param(names.MODEL_POOLS, *each, id=f"pool: {name}") for name, each in REFUSED_POOLS.items()],
    ],
)
def test_a_hostile_spec_is_refused_with_a_sentence(plural, manifest, sentence, scene):
    with pytest.raises(client.ApiException) as raised:
        Resources(scene.mallory.api, scene.mine.namespace, plural).create(manifest)
    assert raised.value.status == 422, raised.value.body
    assert sentence in json.loads(raised.value.body)["message"]


def test_a_variable_from_a_secret_becomes_an_empty_one(scene, made):
    """``valueFrom`` is no field of ours: whoever may make workers cannot read Secrets by it."""
    body = small("from-secret", **env("OMP_NUM_THREADS"))
    body["spec"]["template"]["env"] = [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "private", "key": "k"}}}]
    mine = Resources(scene.mallory.api, scene.mine.namespace, names.MODEL_WORKERS).create(body)
    (container,) = pod_of(scene.mine, mine)["spec"]["containers"]
    assert container["env"] == [{"name": "A"}, *expected.environment(mine)]


def test_a_template_adds_what_it_may_and_nothing_else(scene, made):
    """The allowlist from the other side: every field of a template at once, and where each of them ends up."""
    allowed = {
        "resources": {"requests": {"cpu": "1m"}, "limits": {"memory": "2Mi"}},
        "env": [{"name": "OMP_NUM_THREADS", "value": "2"}],
        "nodeSelector": {"example.com/disk": "fast"},
        "imagePullSecrets": [{"name": "registry"}],
        "labels": {"team": "blue"},
        "annotations": {"example.com/why": "so"},
    }
    spec = {"template": allowed, "model": {**HUB, "tokenSecretRef": {"name": "hub", "key": "k"}, "cacheClaim": "c"}}
    mine = Resources(scene.mallory.api, scene.mine.namespace, names.MODEL_WORKERS).create(small("allowed", **spec))
    pod = pod_of(scene.mine, mine)
    plain = expected.spec(mine)
    (container,) = plain["containers"]
    container["env"] = [
        {"name": "OMP_NUM_THREADS", "value": "2"},
        *container["env"],
        {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "k"}}},
    ]
    container["resources"] = {"requests": {"cpu": "1m", "memory": "2Mi"}, "limits": {"memory": "2Mi"}}
    plain["volumes"][1] = {"name": "cache", "persistentVolumeClaim": {"claimName": "c"}}
    plain["nodeSelector"] = {"example.com/disk": "fast", **expected.NODE_SELECTOR}
    plain["imagePullSecrets"] = [{"name": "registry"}]
    pod["spec"].pop("schedulingGates", None)
    assert pod["spec"] == plain
    assert pod["metadata"]["labels"] == {"team": "blue", **expected.labels(mine)}
    assert pod["metadata"]["annotations"].items() >= allowed["annotations"].items()


@pytest.mark.parametrize("mount", ["pvc", "oci"])
def test_a_source_is_mounted_read_only_at_one_place(mount, scene, made):
    source = {"pvc": "pvc://claim/a/b", "oci": "oci://registry.example.com/models/x:1"}[mount]
    body = small(f"from-{mount}", **model(source=source))
    mine = Resources(scene.mallory.api, scene.mine.namespace, names.MODEL_WORKERS).create(body)
    spec = pod_of(scene.mine, mine)["spec"]
    volume = {
        "pvc": {"persistentVolumeClaim": {"claimName": "claim", "readOnly": True}},
        "oci": {"image": {"reference": "registry.example.com/models/x:1", "pullPolicy": "IfNotPresent"}},
    }[mount]
    path = {"pvc": "/models/source/a/b", "oci": "/models/source"}[mount]
    plain = expected.spec(mine)
    (container,) = plain["containers"]
    plain["volumes"].append({"name": "model", **volume})
    container["volumeMounts"].append({"name": "model", "mountPath": "/models/source", "readOnly": True})
    for variable in container["env"]:
        if variable["name"] == "MODELPOOL_MODEL_PATH":
            variable["value"] = path
    spec.pop("schedulingGates", None)
    assert spec == plain
