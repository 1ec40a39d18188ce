"""Objects as the API server sends them, read into the models."""

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from modelpool_api import Capability, WorkerState
from modelpool_operator.api.conditions import find_condition
from modelpool_operator.api.modelpool import ModelPool, StopPolicy
from modelpool_operator.api.modelworker import Eviction, ModelWorker

TIME = "2026-01-02T03:04:05Z"
MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def worker(status=None, **spec):
    model = {"name": "minilm", "capability": "text-embedding", "source": "file:///models/minilm"}
    return {
        "apiVersion": "modelpool.dev/v1alpha1",
        "kind": "ModelWorker",
        "metadata": {
            "name": "minilm",
            "namespace": "default",
            "uid": "u",
            "resourceVersion": "7",
            "generation": 2,
            "creationTimestamp": TIME,
            "managedFields": [{"manager": "kubectl"}],
        },
        "spec": {"pool": "default", "model": model, "memory": "8Gi", **spec},
        **({"status": status} if status is not None else {}),
    }


def test_a_worker_without_status_is_read_with_defaults():
    read = ModelWorker.from_dict(worker())
    assert read.metadata.creation_timestamp == MOMENT
    assert not read.metadata.deleting
    assert read.spec.model.capability is Capability.TEXT_EMBEDDING
    assert read.spec.memory_mib == 8192
    assert read.spec.eviction is Eviction.AUTO
    assert read.spec.idle_timeout_seconds is None
    assert read.spec.template is None
    assert read.status.state is None
    assert read.status.transitions == ()


def test_a_status_is_read_by_the_names_of_the_api():
    condition = {"type": "Ready", "status": "False", "lastTransitionTime": TIME}
    read = ModelWorker.from_dict(
        worker(
            status={
                "state": "Loading",
                "podUID": "p",
                "memoryMiB": {"declared": 8192},
                "mirrored": {"bootID": "b", "seq": 3},
                "transitions": [{"from": "Spawning", "to": "Loading", "time": TIME}],
                "lastFailure": {"exitCode": 78, "container": "worker"},
                "conditions": [condition],
            }
        )
    ).status
    assert (read.state, read.pod_uid) == (WorkerState.LOADING, "p")
    assert read.memory_mib is not None
    assert (read.memory_mib.declared, read.memory_mib.measured) == (8192, None)
    assert read.mirrored is not None
    assert (read.mirrored.boot_id, read.mirrored.seq) == ("b", 3)
    assert (read.transitions[0].from_state, read.transitions[0].time) == (WorkerState.SPAWNING, MOMENT)
    assert read.last_failure is not None
    assert read.last_failure.exit_code == 78
    found = find_condition(read.conditions, "Ready")
    assert found is not None
    assert found.to_api() == {**condition, "reason": "", "message": ""}
    assert find_condition(read.conditions, "Healthy") is None


def test_a_state_of_another_version_is_unknown_and_fields_of_another_version_are_ignored():
    read = ModelWorker.from_dict(worker(status={"state": "Napping", "dreams": 3}, sheep=True))
    assert read.status.state is WorkerState.UNKNOWN


@pytest.mark.parametrize(
    "spec",
    [
        {"model": {"name": "m", "capability": "poetry", "source": "file:///m"}},
        {"gpus": -1},
        {"gpus": 65},
        {"loadDeadlineSeconds": 0},
        {"memory": ""},
        {"memory": 8},
        {"template": {"env": [{"name": "A", "value": "x" * 1025}]}},
        {"template": {"labels": {str(number): "" for number in range(17)}}},
    ],
)
def test_what_is_out_of_bounds_is_not_read(spec):
    with pytest.raises(ValidationError):
        ModelWorker.from_dict(worker(**spec))


def test_amounts_may_be_written_as_numbers():
    read = ModelWorker.from_dict(worker(template={"resources": {"limits": {"cpu": 2, "memory": "1Gi"}}}))
    assert read.spec.template is not None
    assert read.spec.template.resources is not None
    assert read.spec.template.resources.limits == {"cpu": "2", "memory": "1Gi"}


def test_a_pool_is_read():
    entry = {"name": "minilm", "podUID": "p", "memoryMiB": 8192, "gpus": 0, "since": TIME}
    read = ModelPool.from_dict(
        {
            "metadata": {"name": "default", "deletionTimestamp": TIME},
            "spec": {"memory": "1000M", "stopPolicy": "Hold"},
            "status": {"ledger": {"u": entry}, "reserved": {"memoryMiB": 8192, "gpus": 0}},
        }
    )
    assert read.metadata.deleting
    assert read.spec.memory_mib == 953
    assert read.spec.stop_policy is StopPolicy.HOLD
    assert read.spec.health_check.failure_threshold == 3
    assert read.status.ledger["u"].pod_uid == "p"
    assert read.status.reserved is not None
    assert read.status.reserved.memory_mib == 8192
    assert read.status.to_api()["ledger"] == {"u": entry}


def test_models_cannot_be_changed():
    read = ModelPool.from_dict({"metadata": {"name": "default"}, "spec": {"memory": "1Gi"}})
    with pytest.raises(ValidationError):
        read.spec.memory = "2Gi"
