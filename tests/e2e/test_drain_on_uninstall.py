"""Uninstalling stops the workers in order and leaves nothing that hangs."""

import pytest
from kubernetes import client

from e2e.installation import SYSTEM
from e2e.machine import until
from e2e.team import Team
from e2e.watchers import PODS, POOLS, WORKERS

pytestmark = pytest.mark.e2e


def test_drain_on_uninstall(team: Team):
    """``helm uninstall`` answers what is in flight, ends the workers, frees the objects and keeps them."""
    team.pool()
    team.worker("minilm")
    team.recorder.until_state("minilm", "Ready")
    request = team.begin_long_request("minilm", seconds=6)

    team.installation.uninstall()

    request.assert_answered()
    assert team.recorder.states("minilm")[-2:] == ["Evicting", "Dead"]
    assert [version.gone for version in team.recorder.versions(PODS)][-1]
    assert team.pool_status()["reserved"] == {"memoryMiB": 0, "gpus": 0}
    for kind, name in ((WORKERS, "minilm"), (POOLS, "pool")):
        assert not team.recorder.latest(kind, name)["metadata"].get("finalizers"), f"{kind} can be deleted"
    until(lambda: not team.core.list_namespaced_pod(SYSTEM).items, "the operator's pods are gone")
    roles = client.RbacAuthorizationV1Api(team.core.api_client).list_cluster_role().items
    assert [each.metadata.name for each in roles if each.metadata.name.startswith("modelpool-drain")] == []
    team.assert_nothing_left_of("minilm")
