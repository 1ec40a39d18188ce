"""The chart's operator, a user with rights in one namespace, and a neighbour in another who must notice nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes import client, config

from control_plane.operator_runs.process import OperatorProcess
from control_plane.operator_runs.site import Site, World, until
from control_plane.security import audit
from control_plane.security.installed import Installed

OURS = {"apiGroups": ["modelpool.dev"], "resources": ["models", "modelpools", "modelworkers"], "verbs": ["*"]}
CORE = {"apiGroups": [""], "resources": ["pods", "services", "secrets"], "verbs": ["*"]}
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@dataclass(frozen=True)
class Scene:
    """``mine`` and ``theirs`` are the administrator's view of the two namespaces; the others are users of ``mine``."""

    operator: OperatorProcess
    installed: Installed
    mine: World
    theirs: World
    #: may do everything with our kinds in ``mine``, and nothing else anywhere
    mallory: World
    #: may besides change Pods, Services and Secrets there, as somebody with the role edit
    editor: World


def user(site: Site, name: str, world: World, rules: list[dict[str, Any]]) -> client.ApiClient:
    """A client certificate with a Role of these rules in that namespace, and no right beyond."""
    rbac = client.RbacAuthorizationV1Api(site.api)
    meta = {"name": name, "namespace": world.namespace}
    rbac.create_namespaced_role(world.namespace, {"metadata": meta, "rules": rules})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    subjects = [{"kind": "User", "name": name, "apiGroup": "rbac.authorization.k8s.io"}]
    rbac.create_namespaced_role_binding(world.namespace, {"metadata": meta, "roleRef": reference, "subjects": subjects})
    api: client.ApiClient = config.new_client_from_config(str(site.cluster.client_kubeconfig(name)))
    return api


@contextmanager
def scene_on(site: Site, folder: Path) -> Iterator[Scene]:
    """Both namespaces admit only restricted pods. At the end the operator has said and asked nothing improper."""
    mine, theirs = site.world(), site.world()
    for world in (mine, theirs):
        world.core.patch_namespace(world.namespace, {"metadata": {"labels": RESTRICTED}})
    installed = Installed(site, folder, f"m-{mine.namespace}")
    with (
        user(site, f"mallory-{mine.namespace}", mine, [OURS]) as mallory,
        user(site, f"editor-{mine.namespace}", mine, [OURS, CORE]) as editor,
        installed.operator() as operator,
    ):
        views = [World(api, site.kubelet, site.recorder, mine.namespace) for api in (mallory, editor)]
        theirs.pool(memory="16Gi", nodeSelector={"theirs": "yes"})
        theirs.pool("elsewhere")
        theirs.worker("neighbour", "file:///stuck")
        until(lambda: theirs.status("neighbour").get("reason") == "Unschedulable", "the neighbour has its reservation")
        before = state_of(theirs)
        yield Scene(operator, installed, mine, theirs, *views)
        assert state_of(theirs) == before, "something in the neighbour's namespace was touched"
    operator.assert_clean()
    asked = audit.requests(site.cluster.audit_log, audit.username(installed.account))
    assert audit.not_granted(audit.granted(installed.rights, installed.account), asked) == []
    assert [str(each) for each in asked if each.forbidden] == []
    for world in (mine, theirs):
        world.core.delete_namespace(world.namespace)


def state_of(world: World) -> dict[str, Any]:
    """What the neighbour has: identity and content of all his objects that nobody had a reason to change."""
    core = world.core
    listed = [
        *core.list_namespaced_pod(world.namespace).items,
        *core.list_namespaced_service(world.namespace).items,
        *core.list_namespaced_secret(world.namespace).items,
    ]
    found = {(type(each).__name__, each.metadata.name): each.metadata.resource_version for each in listed}
    worker = world.get("neighbour") or {}
    return {
        "objects": found,
        "worker": (worker["metadata"]["uid"], worker["status"]["state"], worker["status"]["reason"]),
        "ledgers": [world.ledger(pool) for pool in ("default", "elsewhere")],
        "reserved": [world.pool_status(pool).get("reserved") for pool in ("default", "elsewhere")],
    }
