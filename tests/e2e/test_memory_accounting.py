"""The pool's books, seen by an observer who misses no version of them."""

import re

import httpx
import pytest

from e2e.team import Team
from e2e.watchers import POOLS

pytestmark = pytest.mark.e2e

#: The reservation is 8 GiB in the pool's books; the container itself gets by with less than the node has.
SMALL = {"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "2Gi"}}}


def test_memory_accounting(team: Team):
    """``status.reserved`` is 0 → 8192 → 0 (a load that fails) → 8192 → 0 (an eviction), and nothing else, ever."""
    team.pool(memory="8192Mi", idleTimeoutSeconds=2, evictAfterSeconds=3)
    team.worker("broken", "hf://org/truncated", memory="8Gi", template=SMALL)
    team.recorder.until_state("broken", "Dead")
    team.worker("minilm", memory="8Gi", template=SMALL)
    team.recorder.until_state("minilm", "Dead")

    team.recorder.catch_up()
    assert team.recorder.reserved("pool") == [0, 8192, 0, 8192, 0]
    assert [
        (version.status.get("available") or {}).get("memoryMiB")
        for version in team.recorder.versions(POOLS)
        if version.status.get("reserved", {}).get("memoryMiB") == 8192
    ].count(0) > 0
    assert team.pool_status()["evicted"] == {"IdleEviction": 1, "ModelLoadFailed": 1}
    assert team.recorder.states("minilm")[-2:] == ["Evicting", "Dead"]
    assert metric(team, "modelpool_pool_reserved_memory_mib", namespace=team.namespace, pool="pool") == 0
    team.assert_nothing_left_of("broken")
    team.assert_nothing_left_of("minilm")
    team.assert_invariants()


def metric(team: Team, name: str, **labels: str) -> float:
    """The value that the operator's own metrics show."""
    (pod,) = team.installation.operator_pods()
    text = httpx.get(f"http://{pod.status.pod_ip}:8080/metrics", trust_env=False).raise_for_status().text
    for line in text.splitlines():
        if line.startswith(name) and all(f'{label}="{value}"' in line for label, value in labels.items()):
            return float(re.split(r"\s+", line)[-1])
    raise AssertionError(f"expected the operator to show {name}{labels}; it shows:\n{text}")
