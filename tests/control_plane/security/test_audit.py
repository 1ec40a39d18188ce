"""The rights of the chart are those that a life takes: none is granted unused, none is used that is not granted.

What counts is the API server's own audit log, by the names of the chart's accounts.
"""

import pytest

from control_plane.operator_runs.process import HOME
from control_plane.operator_runs.site import World, until
from control_plane.security import audit
from control_plane.security.installed import Installed
from modelpool_operator.api import names

pytestmark = pytest.mark.control_plane

EXPECTED_SECRET_VERBS = {"get", "create"}


def live(world: World, installed: Installed) -> None:
    """All that an operator ever has to do: reservations, failures, evictions, a change of leader, deletions."""
    with installed.operator("a") as leader, installed.operator("b") as standby:
        until(lambda: "lease.taken" in leader.log.read_text() + standby.log.read_text(), "one leads")
        if "lease.taken" not in leader.log.read_text():
            leader, standby = standby, leader
        foreign = {"metadata": {"name": "taken"}, "spec": {"ports": [{"port": 1}]}}
        world.core.create_namespaced_service(world.namespace, foreign)
        world.open_pool(memory="3Gi", idleTimeoutSeconds=0)
        world.worker("taken", evictAfterSeconds=600)
        world.worker("unused", evictAfterSeconds=1)
        world.worker("broken", "file:///never")
        assert world.reaches("Dead", "broken")["reason"] == "ModelLoadFailed"
        assert world.reaches("Dead", "unused")["reason"] == "IdleEviction"
        world.reaches("Idle", "taken")
        world.worker("large", memory="3Gi", eviction="Never")
        assert world.reaches("Dead", "taken")["reason"] == "RoomEviction"
        world.reaches("Idle", "large")  # Ready passes by: the pool calls everybody idle at once
        world.model(change={"pool": "models"}, minReplicas=1)
        world.pool("models")
        world.reaches("Ready", "m-1")
        world.patch("m", {"minReplicas": 0, "worker": {"evictAfterSeconds": 0}}, names.MODELS)
        world.vanishes("m-1")

        leader.kill()
        world.delete("large")
        world.vanishes("large")
        world.delete("default", names.MODEL_POOLS)
        world.vanishes("default", names.MODEL_POOLS)

        # under another name: the old pool's token is garbage until the collector, half a minute old, knows our kinds
        world.pool("second")
        world.worker("last", pool="second")
        world.reaches("Ready", "last")
        installed.drain()
        assert world.reaches("Dead", "last")["reason"] == "Shutdown"
        assert "finalizers" not in (world.get("second", names.MODEL_POOLS) or {})["metadata"]
    for each in (leader, standby):
        each.assert_clean()


def refused_here(request: audit.Request, namespace: str) -> bool:
    """Namespaces that other tests have left may be on their way out: nothing can be made in those."""
    where = request.right.namespace if request.right else namespace
    return request.code in (401, 403) and where in (namespace, HOME, audit.ANYWHERE)


@pytest.mark.parametrize("mode", ["cluster-wide", "namespaced"])
def test_every_right_is_used_and_every_use_is_a_right(mode, site, world, tmp_path):
    values = {"watchNamespaces": [world.namespace]} if mode == "namespaced" else {}
    installed = Installed(site, tmp_path, mode, values)
    live(world, installed)

    for account in (installed.account, installed.drain_account):
        asked = audit.requests(site.cluster.audit_log, audit.username(account))
        rights = audit.granted(installed.rights, account)
        assert rights
        assert asked
        found = {
            "granted and unused": audit.unused(rights, asked),
            "used and not granted": audit.not_granted(rights, asked),
            "refused": [str(each) for each in asked if each.forbidden or refused_here(each, world.namespace)],
        }
        assert not any(found.values()), (account, found)


def test_of_secrets_the_operator_reads_its_own_by_name_and_makes_them(site, world, tmp_path):
    """Whoever else's Secret it is: the operator asks for none but the pools' tokens."""
    secret = {"metadata": {"name": "private"}, "stringData": {"HF_TOKEN": "x"}}
    world.core.create_namespaced_secret(world.namespace, secret)
    installed = Installed(site, tmp_path, "secrets", {"watchNamespaces": [world.namespace]})
    with installed.operator():
        world.pool()
        model = {"name": "m", "capability": "text-embedding", "source": "hf://org/name"}
        world.worker(model={**model, "tokenSecretRef": {"name": "private"}})
        world.reaches("Loading")
    asked = audit.requests(site.cluster.audit_log, audit.username(installed.account))
    about = {each.right for each in asked if each.right and each.right.resource == "secrets"}
    assert {right.verb for right in about} == EXPECTED_SECRET_VERBS
    assert {right.name for right in about} == {"modelpool-default-token"}
    granted = audit.granted(installed.rights, installed.account)
    assert {right.verb for right in granted if right.resource == "secrets"} == EXPECTED_SECRET_VERBS


def test_the_comparison_names_what_is_too_much_and_what_is_missing():
    """The checker itself: a right that nothing used, and a request that nothing allows, each by its name."""
    rights = {
        audit.Right("*", "", "pods", "", "get"),
        audit.Right("*", "", "pods", "", "update"),
        audit.Right("home", "coordination.k8s.io", "leases", "mine", "get"),
    }
    asked = [
        audit.Request("u", "get", "/api/v1/…", audit.Right("a", "", "pods", "p", "get"), 200, forbidden=False),
        audit.Request(
            "u", "get", "/apis/…", audit.Right("home", "coordination.k8s.io", "leases", "other", "get"), 200, False
        ),
        audit.Request("u", "get", "/apis/modelpool.dev/v1alpha1", None, 200, forbidden=False),
        audit.Request("u", "get", "/metrics", None, 200, forbidden=False),
    ]
    lease = "get leases.coordination.k8s.io"
    assert audit.unused(rights, asked) == [f"{lease} mine in home", "update pods in all namespaces"]
    assert audit.not_granted(rights, asked) == [f"{lease} other in home", "u: get /metrics → 200"]
