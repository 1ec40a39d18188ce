"""The pod of a worker: what the user may set, and all that is ours."""

import pytest

from modelpool_api import Capability
from modelpool_operator.domain.pods import ImageSettings, build_pod, build_service, build_token_secret, template_problem
from unit.modelpool_operator.domain.scenes import UID, pool, worker

IMAGES = ImageSettings("worker:1", {Capability.TEXT_TO_IMAGE: "diffusion:1"}, "IfNotPresent")
TEMPLATE = {
    "resources": {"requests": {"cpu": "2"}, "limits": {"memory": "3Gi"}},
    "env": [{"name": "OMP_NUM_THREADS", "value": "2"}],
    "nodeSelector": {"disk": "ssd"},
    "priorityClassName": "high",
    "imagePullSecrets": [{"name": "registry"}],
    "labels": {"team": "search"},
    "annotations": {"note": "x"},
}


def made(of=None, where=None, images=IMAGES):
    return build_pod(of or worker(), where or pool(), images)


def only(manifest):
    (container,) = manifest["spec"]["containers"]
    return container


def env(manifest):
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in only(manifest)["env"]}


def test_the_pod_passes_the_restricted_pod_security_standard():
    spec = made()["spec"]
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "fsGroup": 10001,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert only(made())["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC", "serviceAccountName", "initContainers"} & set(spec)
    assert {key for volume in spec["volumes"] for key in volume} <= {"name", "secret", "emptyDir"}


def test_the_pod_is_gated_owned_and_labelled():
    pod = made()
    assert pod["spec"]["schedulingGates"] == [{"name": "modelpool.dev/quota"}]
    assert pod["metadata"]["name"] == f"minilm-{UID[:5]}"
    assert pod["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "modelpool.dev/v1alpha1",
            "kind": "ModelWorker",
            "name": "minilm",
            "uid": UID,
            "controller": True,
        }
    ]
    assert pod["metadata"]["labels"] == {
        "app.kubernetes.io/name": "modelpool-worker",
        "app.kubernetes.io/instance": "minilm",
        "app.kubernetes.io/managed-by": "modelpool-operator",
        "modelpool.dev/worker": "minilm",
        "modelpool.dev/worker-uid": UID,
        "modelpool.dev/pool": "default",
        "modelpool.dev/capability": "text-embedding",
    }


def test_restart_policy_grace_and_probes_leave_the_load_to_the_operator():
    """The startup probe outlasts the load deadline, and liveness never acts within a minute."""
    pod = made(worker(loadDeadlineSeconds=600, drainTimeoutSeconds=45))
    assert pod["spec"]["restartPolicy"] == "OnFailure"
    assert pod["spec"]["terminationGracePeriodSeconds"] == 55
    container = only(pod)
    startup, liveness = container["startupProbe"], container["livenessProbe"]
    assert startup["failureThreshold"] * startup["periodSeconds"] > 600
    assert liveness["failureThreshold"] * liveness["periodSeconds"] >= 60
    assert startup["httpGet"] == liveness["httpGet"] == {"path": "/healthz", "port": "inference"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "inference"}
    assert (container["terminationMessagePath"], container["terminationMessagePolicy"]) == (
        "/dev/termination-log",
        "File",
    )


def test_every_field_of_the_template_reaches_the_pod_and_nothing_of_ours_is_lost():
    bare = made()
    pod = made(worker(template=TEMPLATE), pool(priorityClasses=["high"], nodeSelector={"zone": "a"}))
    assert pod["metadata"]["labels"] == {**bare["metadata"]["labels"], "team": "search"}
    assert pod["metadata"]["annotations"] == {"note": "x"}
    assert pod["spec"]["nodeSelector"] == {"disk": "ssd", "zone": "a"}
    assert pod["spec"]["priorityClassName"] == "high"
    assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert env(pod) == {**env(bare), "OMP_NUM_THREADS": "2"}
    changed = {"nodeSelector", "priorityClassName", "imagePullSecrets", "containers"}
    assert {key: value for key, value in pod["spec"].items() if key not in changed} == {
        key: value for key, value in bare["spec"].items() if key not in changed
    }


def test_our_labels_and_variables_win_over_the_users():
    """Where a variable is given twice the last one counts."""
    template = {
        "labels": {"modelpool.dev/pool": "another"},
        "env": [{"name": "MODELPOOL_WORKER_ID", "value": "forged"}],
    }
    pod = made(worker(template=template))
    assert pod["metadata"]["labels"]["modelpool.dev/pool"] == "default"
    values = [each["value"] for each in only(pod)["env"] if each["name"] == "MODELPOOL_WORKER_ID"]
    assert values[-1] == UID


def test_the_pools_selector_wins_over_the_workers():
    pod = made(worker(template={"nodeSelector": {"zone": "b"}}), pool(nodeSelector={"zone": "a"}))
    assert pod["spec"]["nodeSelector"] == {"zone": "a"}


def test_runtime_class_and_tolerations_are_the_pools():
    taint = {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}
    spec = made(where=pool(runtimeClassName="nvidia", tolerations=[taint]))["spec"]
    assert spec["runtimeClassName"] == "nvidia"
    assert [each["key"] for each in spec["tolerations"]] == ["gpu"]
    assert "runtimeClassName" not in made()["spec"]


def test_the_worker_is_told_what_to_serve():
    model = {"name": "m", "capability": "vision", "source": "hf://org/name@v1", "revision": "v2", "dtype": "float16"}
    of = worker(model=model, gpus=2, idleTimeoutSeconds=90, drainTimeoutSeconds=30)
    assert env(made(of)) == {
        "MODELPOOL_WORKER_ID": UID,
        "MODELPOOL_MODEL_NAME": "m",
        "MODELPOOL_CAPABILITY": "vision",
        "MODELPOOL_MODEL_SOURCE": "hf://org/name@v1",
        "MODELPOOL_MODEL_REVISION": "v2",
        "MODELPOOL_MODEL_PATH": "",
        "MODELPOOL_DTYPE": "float16",
        "MODELPOOL_GPUS": "2",
        "MODELPOOL_IDLE_TIMEOUT_SECONDS": "90",
        "MODELPOOL_DRAIN_TIMEOUT_SECONDS": "30",
        "MODELPOOL_IMAGE_URL_HOSTS": "",
        "MODELPOOL_IMAGE_URL_REFUSED_NETWORKS": "",
    }


@pytest.mark.parametrize("hosts", ["images.example,http://cdn.example:8080", ""], ids=["listed", "none"])
def test_what_images_are_fetched_from_is_the_installations_to_say_never_the_templates(hosts):
    of = worker(template={"env": [{"name": "MODELPOOL_IMAGE_URL_HOSTS", "value": "elsewhere.example"}]})
    fetching = ImageSettings("worker:1", {}, "Always", url_hosts=hosts, url_refused_networks="2001:db8::/32")
    given = only(made(of, images=fetching))["env"]
    assert [each["value"] for each in given if each["name"] == "MODELPOOL_IMAGE_URL_HOSTS"][-1] == hosts
    assert env(made(of, images=fetching))["MODELPOOL_IMAGE_URL_REFUSED_NETWORKS"] == "2001:db8::/32"


def test_whether_requests_need_the_pools_token_is_the_installations_to_say():
    closed = ImageSettings("worker:1", {}, "Always", closed_inference=True)
    assert env(made(worker(), images=closed))["MODELPOOL_CLOSED_INFERENCE"] == "true"
    assert "MODELPOOL_CLOSED_INFERENCE" not in env(made(worker()))


def test_a_hub_token_comes_from_its_secret_and_a_mirror_from_the_settings():
    model = {
        "name": "m",
        "capability": "vision",
        "source": "hf://o/n",
        "tokenSecretRef": {"name": "hub", "key": "t"},
    }
    mirror = ImageSettings("worker:1", {}, "Always", "http://hub.local")
    found = env(made(worker(model=model), images=mirror))
    assert found["HF_TOKEN"] == {"secretKeyRef": {"name": "hub", "key": "t"}}
    assert found["HF_ENDPOINT"] == "http://hub.local"


@pytest.mark.parametrize(("capability", "image"), [("text-to-image", "diffusion:1"), ("text-embedding", "worker:1")])
def test_a_capability_may_have_an_image_of_its_own(capability, image):
    of = worker(model={"name": "m", "capability": capability, "source": "hf://o/n"})
    assert only(made(of))["image"] == image


@pytest.mark.parametrize(
    ("source", "path", "volume"),
    [
        pytest.param("hf://org/name", "", None, id="hf"),
        pytest.param("file:///models/m", "", None, id="file"),
        pytest.param(
            "pvc://claim/a/b",
            "/models/source/a/b",
            {"persistentVolumeClaim": {"claimName": "claim", "readOnly": True}},
            id="pvc",
        ),
        pytest.param(
            "pvc://claim",
            "/models/source",
            {"persistentVolumeClaim": {"claimName": "claim", "readOnly": True}},
            id="pvc-whole",
        ),
        pytest.param(
            "oci://reg.example/m:1",
            "/models/source",
            {"image": {"reference": "reg.example/m:1", "pullPolicy": "IfNotPresent"}},
            id="oci",
        ),
    ],
)
def test_sources_are_mounted_read_only(source, path, volume):
    pod = made(worker(model={"name": "m", "capability": "text-embedding", "source": source}))
    assert env(pod)["MODELPOOL_MODEL_PATH"] == path
    volumes = [each for each in pod["spec"]["volumes"] if each["name"] == "model"]
    mounts = [each for each in only(pod)["volumeMounts"] if each["name"] == "model"]
    assert volumes == ([{"name": "model", **volume}] if volume else [])
    assert mounts == ([{"name": "model", "mountPath": "/models/source", "readOnly": True}] if volume else [])


def test_the_pools_token_is_mounted_and_everything_else_that_can_be_written_is_thrown_away():
    pod = made()
    volumes = {each["name"]: each for each in pod["spec"]["volumes"]}
    assert volumes["token"]["secret"] == {"secretName": "modelpool-default-token", "defaultMode": 0o440}
    assert {mount["mountPath"]: mount.get("readOnly", False) for mount in only(pod)["volumeMounts"]} == {
        "/var/run/modelpool/token": True,
        "/var/cache/modelpool": False,
        "/tmp": False,
    }
    assert "emptyDir" in volumes["cache"]
    assert "emptyDir" in volumes["tmp"]


def test_a_cache_claim_is_where_downloads_go():
    model = {"name": "m", "capability": "text-embedding", "source": "hf://o/n", "cacheClaim": "models"}
    bare, pod = made(), made(worker(model=model))
    volumes = {each["name"]: each for each in pod["spec"]["volumes"]}
    assert volumes["cache"] == {"name": "cache", "persistentVolumeClaim": {"claimName": "models"}}
    assert only(pod)["volumeMounts"] == only(bare)["volumeMounts"]


@pytest.mark.parametrize(
    ("spec", "requests", "limits"),
    [
        pytest.param({}, {"memory": "1024Mi"}, {"memory": "1024Mi"}, id="memory-is-the-containers"),
        pytest.param({"gpus": 2}, {"nvidia.com/gpu": "2"}, {"nvidia.com/gpu": "2"}, id="memory-is-the-accelerators"),
        pytest.param(
            {"template": {"resources": {"limits": {"memory": "3Gi"}}}},
            {"memory": "3Gi"},
            {"memory": "3Gi"},
            id="own-limit",
        ),
        pytest.param(
            {"template": {"resources": {"requests": {"cpu": "2"}}}},
            {"memory": "1024Mi", "cpu": "2"},
            {"memory": "1024Mi"},
            id="own-cpu",
        ),
        pytest.param(
            {"gpus": 1, "template": {"resources": {"requests": {"memory": "4Gi"}}}},
            {"memory": "4Gi", "nvidia.com/gpu": "1"},
            {"nvidia.com/gpu": "1"},
            id="gpu-and-memory",
        ),
    ],
)
def test_resources(spec, requests, limits):
    assert only(made(worker(**spec)))["resources"] == {"requests": requests, "limits": limits}


def test_accelerators_are_asked_for_under_the_pools_resource_name():
    resources = only(made(worker(gpus=1), pool(gpuResourceName="amd.com/gpu")))["resources"]
    assert resources["limits"] == {"amd.com/gpu": "1"}


@pytest.mark.parametrize(
    ("template", "where", "problem"),
    [
        pytest.param(None, pool(), None, id="none"),
        pytest.param(TEMPLATE, pool(priorityClasses=["high"]), None, id="all-allowed"),
        pytest.param({"priorityClassName": "x"}, pool(priorityClasses=["y"]), "allowed: y", id="priority-class"),
        pytest.param(
            {"tolerations": [{"key": "gpu", "operator": "Exists"}]}, pool(), "does not tolerate gpu", id="toleration"
        ),
        pytest.param({"tolerations": [{"operator": "Exists"}]}, pool(), "every taint", id="toleration-of-everything"),
        pytest.param(
            {"tolerations": [{"key": "gpu", "operator": "Exists"}]},
            pool(tolerations=[{"key": "gpu", "operator": "Exists"}]),
            None,
            id="toleration-allowed",
        ),
        pytest.param(
            {"nodeSelector": {"zone": "b"}}, pool(nodeSelector={"zone": "a"}), "fixes zone to a", id="node-selector"
        ),
    ],
)
def test_a_template_may_ask_only_for_what_its_pool_allows(template, where, problem):
    found = template_problem(worker(template=template), where)
    assert found is None if problem is None else problem in found


def test_the_service_has_the_workers_name_and_selects_this_incarnation_only():
    service = build_service(worker())
    assert service["metadata"]["name"] == "minilm"
    assert service["spec"]["selector"] == {"modelpool.dev/worker-uid": UID}
    assert service["spec"]["ports"] == [{"name": "inference", "port": 8080, "targetPort": "inference"}]
    assert service["metadata"]["ownerReferences"][0]["uid"] == UID


def test_the_token_secret_belongs_to_its_pool():
    secret = build_token_secret(pool(), "t0ken")
    assert secret["metadata"]["name"] == "modelpool-default-token"
    assert secret["metadata"]["ownerReferences"][0]["uid"] == "pool-uid"
    assert secret["stringData"] == {"token": "t0ken"}
