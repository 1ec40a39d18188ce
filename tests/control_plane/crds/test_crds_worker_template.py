"""The small part of a pod that users may set: what of it is refused, and with which sentence."""

import copy
import json

import pytest
from kubernetes.client import ApiException

from control_plane.crds.resources import assert_refused, env, template, worker

pytestmark = pytest.mark.control_plane


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
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
def test_a_wrong_template_is_refused_with_a_sentence(workers, spec, field, message):
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
