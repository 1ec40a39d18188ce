"""The checker of the end-to-end tests finds what it is there to find, and nothing in a life as it should be."""

from typing import Any

import pytest

from e2e.invariants import violations
from e2e.watchers import PODS, POOLS, WORKERS, Version

ENTRY = {"name": "w", "podUID": "pod", "memoryMiB": 1024, "gpus": 0}


def pool(number: int, reserved: int, ledger: dict[str, Any], **status: Any) -> Version:
    full = {"reserved": {"memoryMiB": reserved, "gpus": 0}, "ledger": ledger, **status}
    return version(POOLS, "pool", number, spec={"memory": "1Gi"}, status=full)


def worker(number: int, state: str, reason: str = "Because", **status: Any) -> Version:
    return version(WORKERS, "w", number, status={"state": state, "reason": reason, **status})


def pod(number: int, *, gated: bool = False, gone: bool = False, uid: str = "pod", owners: int = 1) -> Version:
    spec = {"schedulingGates": [{"name": "quota"}]} if gated else {}
    owner = {"uid": "w", "name": "w"}
    return version(PODS, uid, number, gone=gone, spec=spec, owners=[owner] * owners)


def version(kind: str, uid: str, number: int, *, gone: bool = False, owners: Any = (), **body: Any) -> Version:
    metadata = {"name": uid, "uid": uid, "resourceVersion": str(number), "ownerReferences": list(owners)}
    return Version(kind, {"metadata": metadata, **body}, gone, float(number))


LIFE = [
    pool(1, 0, {}),
    worker(2, "Spawning"),
    pod(3, gated=True),
    pool(4, 1024, {"w": ENTRY}),
    pod(5),
    worker(6, "Loading"),
    worker(7, "Failed"),
    worker(8, "Failed"),
    pod(9, gone=True),
    pool(10, 0, {}),
    worker(11, "Dead"),
]


def test_a_life_as_it_should_be_has_no_violation():
    assert violations(LIFE) == []


@pytest.mark.parametrize(
    ("life", "found"),
    [
        pytest.param([pool(1, 512, {"w": ENTRY})], "the ledger sums up to 1024", id="wrong sum"),
        pytest.param([pool(1, 2048, {"w": ENTRY, "x": ENTRY})], "2048 memoryMiB of 1024", id="beyond the budget"),
        pytest.param([pool(1, 0, {}, ledgerRepairs=1)], "1 ledger repairs", id="repaired ledger"),
        pytest.param([worker(1, "Ready")], "began as Ready", id="born ready"),
        pytest.param([worker(1, "Spawning"), worker(2, "Ready")], "not a legal move", id="skipped state"),
        pytest.param([*LIFE, worker(12, "Dead", "Another")], "its reason changed", id="reason of a dead worker"),
        pytest.param(
            [worker(1, "Spawning", transitions=[{"from": "Spawning", "to": "Loading"}])],
            "does not end in its state",
            id="transition ahead of its state",
        ),
        pytest.param(
            [worker(1, "Spawning", transitions=[{"from": "A", "to": "B"}, {"from": "C", "to": "Spawning"}])],
            "not a chain",
            id="torn chain",
        ),
        pytest.param([*LIFE, pod(12, gated=True, uid="other")], "had two pods", id="second pod"),
        pytest.param([*LIFE, pod(12, gated=True, uid="other", owners=2)], "has 2 owners", id="two owners"),
        pytest.param([pool(1, 0, {}), pod(2), pod(3, gone=True)], "could run uncharged", id="never charged"),
        pytest.param(
            [pool(1, 1024, {"w": ENTRY}), pod(2), pool(3, 0, {}), pod(4, gone=True)],
            "could run uncharged",
            id="released before the pod was gone",
        ),
    ],
)
def test_a_violation_is_named(life, found):
    assert any(found in each for each in violations(life)), violations(life)
