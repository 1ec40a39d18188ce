"""What users may write into a ModelWorker, and the sentences that they get when they may not."""

import copy

import pytest
from kubernetes.client import ApiException

from control_plane.crds.resources import FULL, MINILM, assert_refused, env, model, template, worker
from modelpool_api import Capability
from modelpool_operator.api.modelworker import ModelWorker

pytestmark = pytest.mark.control_plane


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
        pytest.param(
            model(source="pvc://claim", cacheClaim="models"),
            "spec.model",
            "cacheClaim goes with an hf:// source",
            id="cache for a volume",
        ),
        pytest.param(
            model(source="hf://org/name", cacheClaim="Models"),
            "spec.model.cacheClaim",
            "model.cacheClaim must be lower case letters",
            id="cache in capitals",
        ),
    ],
)
def test_a_wrong_worker_is_refused_with_a_sentence(workers, spec, field, message):
    with pytest.raises(ApiException) as raised:
        workers.create(worker(**copy.deepcopy(spec)))
    assert_refused(raised, field, message)
