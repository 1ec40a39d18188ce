"""What users may write into specs, and the sentences that they get when they may not."""

import copy
import json
from typing import Any

import pytest
from kubernetes.client import ApiException

from control_plane.crds.resources import assert_refused, pool, worker
from modelpool_api import Capability
from modelpool_operator.api.modelpool import ModelPool
from modelpool_operator.api.modelworker import ModelWorker

pytestmark = pytest.mark.control_plane

MINILM = worker()["spec"]["model"]


def model(**fields: Any) -> dict[str, Any]:
    return {"model": {**MINILM, **fields}}


def template(**fields: Any) -> dict[str, Any]:
    return {"template": fields}


def env(*names: str) -> dict[str, Any]:
    return template(env=[{"name": name, "value": "1"} for name in names])


FULL = {
    **model(source="hf://org/name", revision="v1.0", dtype="bfloat16", tokenSecretRef={"name": "hub"}),
    "memory": "2.5Gi",
    "gpus": 2,
    "priority": -1000,
    "idleTimeoutSeconds": 0,
    "evictAfterSeconds": 0,
    "loadDeadlineSeconds": 1,
    "scheduleDeadlineSeconds": 1,
    "drainTimeoutSeconds": 0,
    "restartLimit": 0,
    "eviction": "Never",
    "service": False,
    "template": {
        "resources": {"requests": {"cpu": 1, "memory": "1Gi"}, "limits": {"cpu": "1500m", "ephemeral-storage": "1Gi"}},
        "env": [{"name": "OMP_NUM_THREADS", "value": "2"}],
        "nodeSelector": {"kubernetes.io/arch": "amd64", "example.com/pool": ""},
        "tolerations": [
            {"operator": "Exists"},
            {"key": "nvidia.com/gpu", "value": "present", "effect": "NoExecute", "tolerationSeconds": 60},
        ],
        "priorityClassName": "batch.low",
        "imagePullSecrets": [{"name": "registry"}],
        "labels": {"example.com/team": "blue", "app": "search"},
        "annotations": {"example.com/why": "any text: allowed / here"},
    },
}


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({}, id="minimal"),
        pytest.param(FULL, id="every field"),
        *[pytest.param(model(capability=str(one)), id=f"capability {one}") for one in Capability],
        *[
            pytest.param(model(source=source), id=source)
            for source in (
                "hf://sentence-transformers/all-MiniLM-L6-v2",
                "hf://org/name@main",
                "hf://org/name@refs/pr/3",
                "hf://org/name@0123456789abcdef0123456789abcdef01234567",
                "pvc://claim",
                "pvc://claim/path/to/model",
                "pvc://claim.v2/path/",
                "file:///models",
                "file:///models/all-MiniLM-L6-v2/1_Pooling",
                "oci://models",
                "oci://localhost/a.b/c__d/e--f_g",
                "oci://registry.example.com:5000/team/minilm:v1.0",
                "oci://registry.example.com/minilm@sha256:" + "0" * 64,
            )
        ],
        *[pytest.param({"memory": memory}, id=f"memory {memory}") for memory in ("1", "0.5Gi", "8000M", "1Pi", "12k")],
        *[
            pytest.param(env(name), id=f"env {name}")
            for name in (
                "OMP_NUM_THREADS",
                "_x",
                "TOKENIZERS_PARALLELISM",
                "PYTORCH_CUDA_ALLOC_CONF",
                "MY_PATH",
                "HOMEPAGE",
            )
        ],
        pytest.param({"priority": 1000, "gpus": 64}, id="upper bounds"),
        pytest.param(template(resources={"requests": {"memory": "8Gi"}}), id="request up to memory"),
        pytest.param(
            template(resources={"requests": {"memory": "9Gi"}, "limits": {"memory": "9Gi"}}), id="limit above memory"
        ),
        pytest.param({"gpus": 1, **template(resources={"requests": {"memory": "9Gi"}})}, id="request beside a GPU"),
    ],
)
def test_a_right_worker_is_accepted_and_the_models_read_it(workers, spec):
    written = workers.create(worker(**copy.deepcopy(spec)), field_validation="Strict")
    read = ModelWorker.from_dict(written)
    assert read.metadata.name == "minilm"
    assert read.spec.model.source == {**MINILM, **spec.get("model", {})}["source"]
    assert read.spec.memory_mib >= 1


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        pytest.param({"pool": None}, "spec.pool", "Required value", id="no pool"),
        pytest.param({"pool": "Default"}, "spec.pool", "pool must be the name of a ModelPool", id="pool in capitals"),
        pytest.param({"pool": "other/default"}, "spec.pool", "in the same namespace", id="pool elsewhere"),
        pytest.param({"memory": None}, "spec.memory", "Required value", id="no memory"),
        *[
            pytest.param(
                {"memory": memory}, "spec.memory", "memory must be a number with a suffix", id=f"memory {memory}"
            )
            for memory in ("much", "8 Gi", "8gb", "-8Gi", "8e3", "500m", "Gi", ".5Gi", "８Gi")
        ],
        pytest.param({"memory": ""}, "spec.memory", "should be at least 1 chars long", id="empty memory"),
        pytest.param({"memory": 8}, "spec.memory", "must be of type string", id="memory as a number"),
        pytest.param({"memory": "0"}, "spec.memory", "memory must be more than 0", id="memory 0"),
        pytest.param({"memory": "0.0Gi"}, "spec.memory", "memory must be more than 0", id="memory 0.0Gi"),
        pytest.param({"memory": "2Pi"}, "spec.memory", "memory must be at most 1Pi", id="memory 2Pi"),
        pytest.param({"memory": "99999999999999999Pi"}, "spec.memory", "at most 1Pi", id="memory beyond 64 bit"),
        pytest.param({"gpus": -1}, "spec.gpus", "greater than or equal to 0", id="gpus -1"),
        pytest.param({"gpus": 65}, "spec.gpus", "less than or equal to 64", id="gpus 65"),
        pytest.param({"gpus": 0.5}, "spec.gpus", "must be of type int64", id="half a GPU"),
        pytest.param({"priority": 1001}, "spec.priority", "less than or equal to 1000", id="priority 1001"),
        pytest.param(
            {"loadDeadlineSeconds": 0}, "spec.loadDeadlineSeconds", "greater than or equal to 1", id="deadline 0"
        ),
        pytest.param({"idleTimeoutSeconds": 2592001}, "spec.idleTimeoutSeconds", "2592000", id="idle for too long"),
        pytest.param({"restartLimit": 101}, "spec.restartLimit", "less than or equal to 100", id="restarts 101"),
        pytest.param({"eviction": "Sometimes"}, "spec.eviction", 'supported values: "Auto", "Never"', id="eviction"),
        pytest.param(
            model(capability="poetry"), "spec.model.capability", 'supported values: "text-embedding"', id="capability"
        ),
        pytest.param(model(dtype="int4"), "spec.model.dtype", 'supported values: "auto", "float32"', id="dtype"),
        *[
            pytest.param(
                model(name=name), "spec.model.name", "model.name must be letters, digits and", id=f"model {name!r}"
            )
            for name in ("a b", "-a", "a/", "ä", "a\nb")
        ],
        *[
            pytest.param(
                model(source=source), "spec.model.source", "model.source must be hf://org/name", id=f"source {source!r}"
            )
            for source in (
                "org/name",
                "http://example.com/model",
                "https://example.com/model",
                "hf://name",
                "hf://org/name/file",
                "hf://org/name@",
                "hf://org/../name",
                "hf://org/name@a..b",
                "hf://user:key@example.com/x",
                "HF://org/name",
                "pvc:///path",
                "pvc://claim/../other",
                "pvc://Claim/path",
                "pvc://a.-b/path",
                "file://host/path",
                "file:///",
                "file:///models/../etc",
                "file:///models//x",
                "file:///models/a b",
                "file:///models/$(HOME)",
                "oci://Registry/x",
                "oci://registry/x:",
                "oci://registry/a._b",
                "oci://registry/x@sha256:1",
                "file:///models/x\nfile:///y",
                " file:///models/x",
            )
        ],
        pytest.param(
            model(revision="main"), "spec.model", "model.revision goes with an hf:// source", id="revision of a file"
        ),
        pytest.param(
            model(source="hf://org/name@v1", revision="v2"),
            "spec.model",
            "an hf:// source that names no revision itself",
            id="two revisions",
        ),
        pytest.param(
            model(source="hf://org/name", revision="a b"),
            "spec.model.revision",
            "model.revision must be a commit, tag or branch",
            id="revision with a blank",
        ),
        pytest.param(
            model(tokenSecretRef={"name": "hub"}),
            "spec.model",
            "tokenSecretRef goes with an hf:// source",
            id="token for a file",
        ),
        pytest.param(
            model(source="hf://org/name", tokenSecretRef={"name": "Hub"}),
            "spec.model.tokenSecretRef.name",
            "the name of a Secret must be lower case letters",
            id="Secret in capitals",
        ),
        pytest.param(
            model(source="hf://org/name", tokenSecretRef={"name": "hub", "key": "a/b"}),
            "spec.model.tokenSecretRef.key",
            "key must be letters, digits and - _ .",
            id="key with a slash",
        ),
        *[
            pytest.param(
                env(name), "spec.template.env[0].name", "this environment variable is reserved", id=f"env {name}"
            )
            for name in (
                *("LD_PRELOAD", "LD_LIBRARY_PATH", "ld_preload", "GLIBC_TUNABLES", "MALLOC_ARENA_MAX"),
                *("PYTHONPATH", "PYTHONSTARTUP", "PythonPath", "PATH", "HOME", "BASH_ENV", "NODE_OPTIONS", "GIT_SSH"),
                *(
                    "HTTP_PROXY",
                    "https_proxy",
                    "No_Proxy",
                    "ALL_PROXY",
                    "SSL_CERT_FILE",
                    "SSLKEYLOGFILE",
                    "OPENSSL_CONF",
                ),
                *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HF_ENDPOINT", "HF_TOKEN", "HUGGINGFACE_HUB_CACHE"),
                *(
                    "TRANSFORMERS_CACHE",
                    "TORCH_HOME",
                    "TORCHINDUCTOR_CACHE_DIR",
                    "PYTORCH_KERNEL_CACHE_PATH",
                    "TRITON_CACHE_DIR",
                ),
                *("NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "NCCL_NET_PLUGIN", "OMP_TOOL_LIBRARIES"),
                *("MODELPOOL_MODEL_SOURCE", "modelpool_gpus", "KUBERNETES_SERVICE_HOST"),
            )
        ],
        *[
            pytest.param(
                env(name),
                "spec.template.env[0].name",
                "the name of an environment variable must be letters, digits and _",
                id=f"env {name!r}",
            )
            for name in ("A B", "1A", "A=B", "A-B", "LD_PRELOAD\n")
        ],
        pytest.param(env("A", "A"), "spec.template.env[1]", "Duplicate value", id="env twice"),
        pytest.param(
            env(*(f"A{n}" for n in range(33))), "spec.template.env", "must have at most 32 items", id="33 env"
        ),
        *[
            pytest.param(
                template(**{kind: {key: "x"}}),
                f"spec.template.{kind}",
                f"keys of {kind} may not lie in kubernetes.io, k8s.io, modelpool.dev",
                id=f"{kind} {key}",
            )
            for kind in ("labels", "annotations")
            for key in (
                "kubernetes.io/x",
                "app.kubernetes.io/name",
                "k8s.io/x",
                "node.k8s.io/x",
                "modelpool.dev/worker",
                "a.modelpool.dev/x",
            )
        ],
        pytest.param(
            template(labels={"a b": "x"}), "spec.template.labels", "each key of labels must be a name", id="label key"
        ),
        pytest.param(
            template(labels={"a/b/c": "x"}), "spec.template.labels", "each key of labels", id="label with slashes"
        ),
        pytest.param(
            template(labels={"K8s.IO/x": "x"}), "spec.template.labels", "each key of labels", id="reserved in capitals"
        ),
        pytest.param(template(labels={"a": "x y"}), "spec.template.labels", "each value of labels", id="label value"),
        pytest.param(
            template(annotations={"-": "x"}),
            "spec.template.annotations",
            "each key of annotations",
            id="annotation key",
        ),
        pytest.param(
            template(nodeSelector={"a": "-"}),
            "spec.template.nodeSelector",
            "each value of nodeSelector",
            id="selector value",
        ),
        pytest.param(
            template(nodeSelector={"": "x"}),
            "spec.template.nodeSelector",
            "each key of nodeSelector",
            id="selector key",
        ),
        pytest.param(
            template(tolerations=[{"key": ""}]),
            "spec.template.tolerations[0]",
            "a toleration without key must have operator Exists",
            id="toleration without key",
        ),
        pytest.param(
            template(tolerations=[{"key": "a", "operator": "Exists", "value": "x"}]),
            "spec.template.tolerations[0]",
            "a toleration with operator Exists has no value",
            id="Exists with value",
        ),
        pytest.param(
            template(tolerations=[{"key": "a", "tolerationSeconds": 1}]),
            "spec.template.tolerations[0]",
            "tolerationSeconds goes with effect NoExecute only",
            id="tolerationSeconds without effect",
        ),
        pytest.param(
            template(tolerations=[{"key": "a b"}]),
            "spec.template.tolerations[0]",
            "the key of a toleration must be that of a taint",
            id="toleration key",
        ),
        pytest.param(
            template(priorityClassName="High Priority"),
            "spec.template.priorityClassName",
            "priorityClassName must be lower case letters",
            id="priority class",
        ),
        pytest.param(
            template(imagePullSecrets=[{"name": "A"}]),
            "spec.template.imagePullSecrets[0].name",
            "the name of a Secret must be lower case letters",
            id="pull secret",
        ),
        pytest.param(
            template(resources={"limits": {"nvidia.com/gpu": "1"}}),
            "spec.template.resources.limits",
            "accelerators are asked for by spec.gpus",
            id="GPU among the resources",
        ),
        pytest.param(
            template(resources={"requests": {"cpu": "two"}}),
            "spec.template.resources.requests",
            "each amount must be a quantity of more than 0",
            id="cpu two",
        ),
        pytest.param(
            template(resources={"limits": {"memory": 0}}),
            "spec.template.resources.limits",
            "each amount must be a quantity of more than 0",
            id="limit 0",
        ),
        pytest.param(
            template(resources={"requests": {"cpu": "1001m"}, "limits": {"cpu": 1}}),
            "spec.template.resources",
            "a request may not be more than the limit",
            id="request above limit",
        ),
        pytest.param(
            template(resources={"requests": {"memory": "8193Mi"}}),
            "spec",
            "template.resources.requests.memory may not be more than memory",
            id="request above memory",
        ),
    ],
)
def test_a_wrong_worker_is_refused_with_a_sentence(workers, spec, field, message):
    with pytest.raises(ApiException) as raised:
        workers.create(worker(**copy.deepcopy(spec)))
    assert_refused(raised, field, message)


@pytest.mark.parametrize(
    "extra",
    ["serviceAccountName", "hostNetwork", "envFrom", "volumes", "securityContext", "containers", "runtimeClassName"],
)
def test_no_other_field_of_a_pod_gets_through(workers, extra):
    body = worker(template={extra: "x"})
    with pytest.raises(ApiException) as raised:
        workers.create(body, field_validation="Strict")
    assert f'unknown field "spec.template.{extra}"' in json.loads(raised.value.body)["message"]
    assert workers.create(body)["spec"]["template"] == {}


@pytest.mark.parametrize("name", ["a", "minilm-2", "a" * 57])
def test_right_names_are_accepted(workers, pools, name):
    workers.create(worker(name))
    pools.create(pool(name))


@pytest.mark.parametrize("name", ["2-minilm", "mini.lm", "a" * 58])
def test_names_that_no_service_can_have_are_refused(workers, pools, name):
    for resources, body in ((workers, worker(name)), (pools, pool(name))):
        with pytest.raises(ApiException) as raised:
            resources.create(body)
        assert_refused(raised, "", "the name must be at most 57 characters: lower case letters, digits and -")


def test_a_worker_gets_the_defaults_of_its_model(workers):
    spec = workers.create(worker())["spec"]
    assert spec == {
        **worker()["spec"],
        "model": {**MINILM, "dtype": "auto"},
        "gpus": 0,
        "priority": 0,
        "eviction": "Auto",
        "shutdown": False,
        "service": True,
    }


def test_a_pool_gets_the_defaults_of_its_model(pools):
    written = pools.create(pool())
    assert written["spec"] == {
        "memory": "64Gi",
        "gpus": 0,
        "gpuResourceName": "nvidia.com/gpu",
        "idleTimeoutSeconds": 300,
        "evictAfterSeconds": 600,
        "minResidencySeconds": 60,
        "loadDeadlineSeconds": 1800,
        "scheduleDeadlineSeconds": 1800,
        "drainTimeoutSeconds": 60,
        "restartLimit": 3,
        "restartWindowSeconds": 600,
        "healthCheck": {"periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3},
        "failedRetentionSeconds": 300,
        "stopPolicy": "None",
    }
    assert ModelPool.from_dict(written).spec.memory_mib == 64 * 1024


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        pytest.param({"memory": None}, "spec.memory", "Required value", id="no memory"),
        pytest.param({"memory": "lots"}, "spec.memory", "memory must be a number with a suffix", id="memory lots"),
        pytest.param({"memory": "0Gi"}, "spec.memory", "memory must be more than 0", id="memory 0"),
        pytest.param({"memory": "1001Pi"}, "spec.memory", "memory must be at most 1000Pi", id="memory 1001Pi"),
        pytest.param({"gpus": 100001}, "spec.gpus", "less than or equal to 100000", id="gpus"),
        *[
            pytest.param(
                {"gpuResourceName": name}, "spec.gpuResourceName", "must be an extended resource", id=f"gpu {name}"
            )
            for name in ("gpu", "kubernetes.io/gpu", "a.kubernetes.io/gpu", "nvidia.com/", "nvidia.com/a/b")
        ],
        pytest.param({"stopPolicy": "Stop"}, "spec.stopPolicy", 'supported values: "None", "Hold"', id="stop policy"),
        pytest.param({"healthCheck": {"periodSeconds": 0}}, "spec.healthCheck.periodSeconds", "to 1", id="period 0"),
        pytest.param({"nodeSelector": {"a": " "}}, "spec.nodeSelector", "each value of nodeSelector", id="selector"),
        pytest.param({"tolerations": [{}]}, "spec.tolerations[0]", "must have operator Exists", id="toleration"),
        pytest.param(
            {"runtimeClassName": "N"},
            "spec.runtimeClassName",
            "runtimeClassName must be lower case",
            id="runtime class",
        ),
        pytest.param(
            {"priorityClasses": ["a", "B"]},
            "spec.priorityClasses[1]",
            "each of priorityClasses must",
            id="priority class",
        ),
        pytest.param({"priorityClasses": ["a", "a"]}, "spec.priorityClasses[1]", "Duplicate value", id="class twice"),
    ],
)
def test_a_wrong_pool_is_refused_with_a_sentence(pools, spec, field, message):
    with pytest.raises(ApiException) as raised:
        pools.create(pool(**spec))
    assert_refused(raised, field, message)


def test_a_pool_may_be_changed_at_any_time(pools):
    pools.create(pool())
    assert pools.patch("default", {"memory": "1Gi", "stopPolicy": "Hold"})["spec"]["memory"] == "1Gi"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"pool": "other"}, id="pool"),
        pytest.param({"memory": "9Gi"}, id="memory"),
        pytest.param({"gpus": 1}, id="gpus"),
        pytest.param({"priority": 1}, id="priority"),
        pytest.param({"service": True}, id="service"),
        pytest.param({"restartLimit": None}, id="restartLimit"),
        pytest.param({"loadDeadlineSeconds": 2}, id="loadDeadlineSeconds"),
        pytest.param({"scheduleDeadlineSeconds": 2}, id="scheduleDeadlineSeconds"),
        pytest.param({"drainTimeoutSeconds": None}, id="drainTimeoutSeconds"),
        pytest.param({"template": None}, id="template removed"),
        pytest.param({"template": {"labels": {"new": "x"}}}, id="one more label"),
        pytest.param({"template": {"env": []}}, id="no more env"),
        pytest.param({"model": {"name": "other"}}, id="model.name"),
        pytest.param({"model": {"source": "hf://org/other"}}, id="model.source"),
        pytest.param({"model": {"revision": None}}, id="model.revision"),
        pytest.param({"model": {"tokenSecretRef": None}}, id="model.tokenSecretRef"),
    ],
)
def test_a_worker_is_one_incarnation(workers, change):
    workers.create(worker(**copy.deepcopy(FULL)))
    with pytest.raises(ApiException) as raised:
        workers.patch("minilm", change)
    message = (
        "only idleTimeoutSeconds, evictAfterSeconds, eviction and shutdown may change; make a new one for the rest"
    )
    assert_refused(raised, "spec", message)


def test_a_field_that_was_not_set_cannot_be_added(workers):
    workers.create(worker())
    for change in ({"restartLimit": 1}, {"template": {}}):
        with pytest.raises(ApiException) as raised:
            workers.patch("minilm", change)
        assert_refused(raised, "spec", "a ModelWorker is one incarnation, as a Pod is")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"idleTimeoutSeconds": 5}, id="idleTimeoutSeconds"),
        pytest.param({"idleTimeoutSeconds": None}, id="idleTimeoutSeconds removed"),
        pytest.param({"evictAfterSeconds": 5}, id="evictAfterSeconds"),
        pytest.param({"eviction": "Auto"}, id="eviction"),
        pytest.param({"shutdown": True}, id="shutdown"),
    ],
)
def test_these_fields_of_a_worker_may_change(workers, change):
    workers.create(worker(**copy.deepcopy(FULL)))
    spec = workers.patch("minilm", change)["spec"]
    assert {field: spec.get(field) for field in change} == change


@pytest.mark.parametrize("back", [False, None], ids=["false", "removed"])
def test_shutdown_is_one_way(workers, back):
    workers.create(worker(shutdown=True))
    with pytest.raises(ApiException) as raised:
        workers.patch("minilm", {"shutdown": back})
    assert_refused(raised, "spec", "shutdown cannot be taken back; make a new ModelWorker instead")
