"""What people see of our kinds: columns, short names, field selectors, explanations."""

import pytest

from control_plane.crds.resources import TIME, entry, moves, pool, served, worker
from modelpool_operator.api import crd, names

pytestmark = pytest.mark.control_plane


def columns(line: str) -> list[str]:
    return line.split()


def test_a_worker_in_columns(workers, kubectl):
    workers.create(worker(gpus=1))
    workers.patch_status("minilm", {"state": "Spawning"})
    chain = moves("Spawning", "Loading")
    status = {"state": "Loading", "reason": "ContainerStarted", "nodeName": "node1", "pendingRequests": 2}
    workers.patch_status("minilm", {**status, "transitions": chain})
    head, row = kubectl("get", "mw").splitlines()
    assert columns(head) == [
        "NAME",
        "STATE",
        "MODEL",
        "CAPABILITY",
        "POOL",
        "MEMORY",
        "GPUS",
        "PENDING",
        "REASON",
        "AGE",
    ]
    shown = ["minilm", "Loading", "all-minilm-l6-v2", "text-embedding", "default", "8Gi", "1", "2", "ContainerStarted"]
    assert columns(row)[:-1] == shown
    wide, row = kubectl("get", "modelworker", "-o", "wide").splitlines()
    assert columns(wide)[-2:] == ["NODE", "AGE"]
    assert columns(row)[-2] == "node1"


def test_a_pool_in_columns(pools, kubectl):
    pools.create(pool(gpus=2))
    status = {"ledger": {"a": entry(8192, 1)}, "reserved": {"memoryMiB": 8192, "gpus": 1}}
    pools.patch_status("default", {**status, "available": {"memoryMiB": 57344, "gpus": 1}})
    head, row = kubectl("get", "mpool").splitlines()
    assert columns(head) == ["NAME", "MEMORY", "RESERVED-MIB", "AVAILABLE-MIB", "GPUS", "RESERVED-GPUS", "AGE"]
    assert columns(row)[:-1] == ["default", "64Gi", "8192", "57344", "2", "1"]


def test_a_model_in_columns(models, kubectl):
    models.create(served(maxReplicas=3))
    condition = {"type": "Ready", "status": "False", "reason": "Loading", "lastTransitionTime": TIME}
    models.patch_status("minilm", {"desiredReplicas": 2, "replicas": 1, "conditions": [condition]})
    head, row = kubectl("get", "mdl").splitlines()
    assert columns(head) == [
        "NAME",
        "MODEL",
        "CAPABILITY",
        "POOL",
        "DESIRED",
        "REPLICAS",
        "MAX",
        "READY",
        "REASON",
        "AGE",
    ]
    shown = ["minilm", "all-minilm-l6-v2", "text-embedding", "default", "2", "1", "3", "False", "Loading"]
    assert columns(row)[:-1] == shown


def test_the_category_lists_all_kinds(workers, pools, models, kubectl):
    workers.create(worker())
    pools.create(pool())
    models.create(served())
    one, other = "modelpool.modelpool.dev/default", "modelworker.modelpool.dev/minilm"
    assert kubectl("get", crd.CATEGORY, "-o", "name").split() == [one, "model.modelpool.dev/minilm", other]
    assert kubectl("get", "model", "-o", "name").split() == ["model.modelpool.dev/minilm"]
    assert kubectl("get", "modelpool", "-o", "name").split() == [one]
    assert kubectl("get", "modelworker", "-o", "name").split() == [other]
    resources = kubectl("api-resources", "--api-group", names.GROUP, "-o", "wide", "--no-headers").splitlines()
    assert [columns(line)[:2] for line in resources] == [
        ["modelpools", "mpool"],
        ["models", "mdl"],
        ["modelworkers", "mw"],
    ]
    assert all(columns(line)[-1] == crd.CATEGORY for line in resources)


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("status.state=Spawning", ["first"]),
        ("status.state=Ready", []),
        ("spec.pool=other", ["second"]),
        ("spec.model.capability=text-embedding,spec.pool=default", ["first"]),
        ("spec.model.name=all-minilm-l6-v2", ["first", "second"]),
    ],
)
def test_workers_can_be_selected_by_field(workers, kubectl, selector, found):
    workers.create(worker("first"))
    workers.create(worker("second", pool="other"))
    workers.patch_status("first", {"state": "Spawning"})
    listed = kubectl("get", "mw", "--field-selector", selector, "-o", "name").split()
    assert [name.rpartition("/")[2] for name in listed] == found


def test_kubectl_waits_for_a_condition(workers, kubectl):
    workers.create(worker())
    condition = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z"}
    workers.patch_status("minilm", {"conditions": [condition]})
    assert "condition met" in kubectl("wait", "--for=condition=Ready", "mw/minilm", "--timeout=5s")


@pytest.mark.parametrize("kind", [names.MODEL, names.MODEL_POOL, names.MODEL_WORKER])
def test_every_field_is_explained(crds, kubectl, kind):
    """No field of ours stands in ``kubectl explain`` without a sentence."""
    lines = kubectl("explain", kind.lower(), "--recursive").splitlines()
    assert len(lines) > 50
    for path in ("spec", "status"):
        text = kubectl("explain", f"{kind.lower()}.{path}")
        assert "<no description>" not in text


def test_a_field_is_explained_with_its_forms(crds, kubectl):
    assert "hf://org/name[@rev], pvc://claim/path" in " ".join(
        kubectl("explain", "modelworker.spec.model.source").split()
    )
