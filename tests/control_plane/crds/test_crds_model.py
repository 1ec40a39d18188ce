"""What users may write into a Model, and its scale subresource."""

import copy
import subprocess

import pytest
from kubernetes import client

from control_plane.crds.resources import FULL, assert_refused, env, refusals, served
from modelpool_operator.api import names
from modelpool_operator.api.model import Model

pytestmark = pytest.mark.control_plane

#: What a Model says for its workers: all that a worker's spec has, but for what is one worker's own.
WORKER = {field: value for field, value in FULL.items() if field != "service"}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(served(), id="minimal"),
        pytest.param(served(change=WORKER, replicas=1, minReplicas=0, maxReplicas=1000, targetPending=1), id="all"),
        pytest.param(served(minReplicas=2, maxReplicas=2), id="a-fixed-size"),
        pytest.param(served(maxReplicas=0), id="switched-off"),
        pytest.param(served(replicas=5), id="more-wanted-than-may-be"),
        pytest.param(served("m" * 46), id="the-longest-name"),
    ],
)
def test_a_right_model_is_accepted_and_read(models, body):
    written = models.create(copy.deepcopy(body), field_validation="Strict")
    read = Model.from_dict(written)
    assert read.spec.worker.model.name == body["spec"]["worker"]["model"]["name"]
    assert read.spec.max_replicas == body["spec"].get("maxReplicas", 1)
    assert read.spec.target_pending == body["spec"].get("targetPending", 8)


@pytest.mark.parametrize(
    ("body", "field", "sentence"),
    [
        pytest.param(
            served(minReplicas=2),
            "spec",
            "minReplicas must not be more than maxReplicas, for example minReplicas: 1 and maxReplicas: 4",
            id="more-at-least-than-at-most",
        ),
        pytest.param(
            served("m" * 47),
            "",
            "the name must be at most 46 characters: lower case letters, digits and -, beginning with a letter and "
            "not ending with -, for example minilm",
            id="no-room-for-a-number",
        ),
        pytest.param(
            served(change={"pool": "Other.One"}),
            "spec.worker.pool",
            "pool must be the name of a ModelPool in the same namespace, for example default",
            id="a-worker-rule",
        ),
    ],
)
def test_a_wrong_model_is_refused_with_a_sentence(models, body, field, sentence):
    with pytest.raises(client.ApiException) as raised:
        models.create(body)
    assert_refused(raised, field, sentence)


def test_a_worker_of_a_model_is_held_to_what_every_worker_is(models):
    """The same list of environment variables, for example."""
    with pytest.raises(client.ApiException) as raised:
        models.create(served(change=env("LD_PRELOAD")))
    assert [where for where, _ in refusals(raised)] == ["spec.worker.template.env[0].name"]


@pytest.mark.parametrize("field", ["shutdown", "service"])
def test_what_is_one_workers_own_is_not_a_models(models, field):
    with pytest.raises(client.ApiException) as raised:
        models.create(served(change={field: True}), field_validation="Strict")
    assert f'unknown field "spec.worker.{field}"' in raised.value.body.replace("\\", "")


def test_kubectl_and_autoscalers_scale_it(models, kubectl, kube, namespace):
    models.create(served(maxReplicas=4))
    models.patch_status("minilm", {"replicas": 1, "selector": "modelpool.dev/model=minilm"})
    assert "scaled" in kubectl("scale", "model/minilm", "--replicas=3")
    assert models.get("minilm")["spec"]["replicas"] == 3
    scale = client.CustomObjectsApi(kube).get_namespaced_custom_object_scale(
        names.GROUP, names.VERSION, namespace, names.MODELS, "minilm"
    )
    assert scale["spec"] == {"replicas": 3}
    assert scale["status"] == {"replicas": 1, "selector": "modelpool.dev/model=minilm"}


def test_a_model_cannot_be_scaled_below_nothing(models, kubectl):
    models.create(served())
    with pytest.raises(subprocess.CalledProcessError):
        kubectl("scale", "model/minilm", "--replicas=-1")
    assert models.get("minilm")["spec"]["replicas"] == 0
