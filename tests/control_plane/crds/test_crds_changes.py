"""Names and defaults of our kinds, the rules of a pool's spec, and what may change afterwards."""

import copy

import pytest
from kubernetes.client import ApiException

from control_plane.crds.resources import FULL, MINILM, assert_refused, pool, worker
from modelpool_operator.api.modelpool import ModelPool

pytestmark = pytest.mark.control_plane


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
        pytest.param({"model": {"cacheClaim": None}}, id="model.cacheClaim"),
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
