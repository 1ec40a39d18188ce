"""Who may do what, compared with a list that is kept here by hand: a right more or less is a failing test."""

from typing import Any

import pytest

pytestmark = pytest.mark.control_plane

OPERATOR = {
    ("modelpool.dev", "modelpools"): {"get", "list", "watch", "patch"},
    ("modelpool.dev", "modelworkers"): {"get", "list", "watch", "patch", "create", "delete"},
    ("modelpool.dev", "models"): {"get", "list", "watch"},
    ("modelpool.dev", "modelpools/status"): {"patch"},
    ("modelpool.dev", "modelworkers/status"): {"patch"},
    ("modelpool.dev", "models/status"): {"patch"},
    ("coordination.k8s.io", "leases"): {"list", "watch"},
    ("", "pods"): {"get", "list", "watch", "create", "patch", "delete"},
    ("", "services"): {"get", "create"},
    ("", "secrets"): {"get", "create"},
    ("events.k8s.io", "events"): {"create"},
}
LEADER = {
    ("coordination.k8s.io", "leases"): {"create"},
    ("coordination.k8s.io", "leases", "modelpool-operator"): {"get", "update"},
}
DRAIN = {
    ("modelpool.dev", "modelpools"): {"list", "patch"},
    ("modelpool.dev", "modelworkers"): {"list", "patch"},
    ("modelpool.dev", "models"): {"list", "patch"},
}
CHANGES = {"create", "update", "patch", "delete", "deletecollection"}
READS = {"get", "list", "watch"}
USERS = {
    "modelpool-view": {
        ("modelpool.dev", "modelpools"): READS,
        ("modelpool.dev", "modelworkers"): READS,
        ("modelpool.dev", "modelpools/status"): READS,
        ("modelpool.dev", "modelworkers/status"): READS,
        ("modelpool.dev", "models"): READS,
        ("modelpool.dev", "models/status"): READS,
        ("modelpool.dev", "models/scale"): {"get"},
    },
    "modelpool-edit": {
        ("modelpool.dev", "modelworkers"): CHANGES,
        ("modelpool.dev", "models"): CHANGES,
        ("modelpool.dev", "models/scale"): {"update", "patch"},
    },
    "modelpool-admin": {("modelpool.dev", "modelpools"): CHANGES},
}

Rights = dict[tuple[str, ...], set[str]]


def rights(role: dict[str, Any]) -> Rights:
    found: Rights = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for name in rule.get("resourceNames", [()]):
                    key = (group, resource, name) if name else (group, resource)
                    found.setdefault(key, set()).update(rule["verbs"])
    return found


def roles(objects: list[dict[str, Any]]) -> dict[tuple[str, str, str], Rights]:
    """Map (kind, namespace, name) of every role to what it allows."""
    return {
        (each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]): rights(each)
        for each in objects
        if each["kind"] in {"Role", "ClusterRole"}
    }


def test_no_rule_has_a_wildcard(render):
    for values in ({}, {"watchNamespaces": ["team-a"]}):
        for found in roles(render(values)).values():
            for key, verbs in found.items():
                assert "*" not in {*key, *verbs}


def test_cluster_wide_the_operator_has_exactly_these_rights(render):
    expected = {
        ("ClusterRole", "", "modelpool-operator"): OPERATOR,
        ("Role", "ops", "modelpool-operator-leader"): LEADER,
        ("ClusterRole", "", "modelpool-drain"): DRAIN,
        **{("ClusterRole", "", name): allowed for name, allowed in USERS.items()},
    }

    assert expected == roles(render())


def test_with_namespaces_the_operator_has_rights_in_them_and_nowhere_else(render):
    expected = {
        ("Role", "ops", "modelpool-operator-leader"): LEADER,
        **{("Role", name, "modelpool-operator"): OPERATOR for name in ("team-a", "team-b")},
        **{("Role", name, "modelpool-drain"): DRAIN for name in ("team-a", "team-b")},
    }

    assert expected == roles(render({"watchNamespaces": ["team-a", "team-b"], "rbac": {"aggregate": False}}))


@pytest.mark.parametrize("values", [{}, {"watchNamespaces": ["team-a"]}], ids=["cluster-wide", "namespaced"])
def test_every_role_is_bound_to_the_account_that_needs_it_and_to_no_other(values, render):
    objects = render(values)
    bindings = [each for each in objects if each["kind"] in {"RoleBinding", "ClusterRoleBinding"}]
    expected = {name.removesuffix("-leader") for _, _, name in roles(objects)} - set(USERS)

    assert {subject["name"] for each in bindings for subject in each["subjects"]} == expected
    for each in bindings:
        (subject,) = each["subjects"]
        assert each["roleRef"]["name"] == each["metadata"]["name"]
        assert subject["namespace"] == "ops"
        assert subject["name"] == each["metadata"]["name"].removesuffix("-leader")


def test_users_get_their_rights_through_the_roles_that_every_cluster_has(render):
    aggregate = "rbac.authorization.k8s.io/aggregate-to-"
    expected = {
        "modelpool-view": {"view", "edit", "admin"},
        "modelpool-edit": {"edit", "admin"},
        "modelpool-admin": {"admin"},
    }
    found = {
        each["metadata"]["name"]: {
            label.removeprefix(aggregate) for label in each["metadata"]["labels"] if label.startswith(aggregate)
        }
        for each in render()
        if each["kind"] == "ClusterRole"
    }

    assert expected == {name: joined for name, joined in found.items() if joined}
