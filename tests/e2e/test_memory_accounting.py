"""The pool's books, seen by an observer who misses no version of them."""

import pytest

from e2e.machine import metric
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

    assert team.recorder.reserved("pool") == [0, 8192, 0, 8192, 0]
    assert [
        (version.status.get("available") or {}).get("memoryMiB")
        for version in team.recorder.versions(POOLS)
        if version.status.get("reserved", {}).get("memoryMiB") == 8192
    ].count(0) > 0
    assert team.pool_status()["evicted"] == {"IdleEviction": 1, "ModelLoadFailed": 1}
    assert team.recorder.states("minilm")[-2:] == ["Evicting", "Dead"]
    (operator,) = team.installation.operator_pods()
    labels = {"namespace": team.namespace, "pool": "pool"}
    assert metric(operator.status.pod_ip, "modelpool_pool_reserved_memory_mib", **labels) == 0
    team.assert_nothing_left_of("broken")
    team.assert_nothing_left_of("minilm")
    team.assert_invariants()
