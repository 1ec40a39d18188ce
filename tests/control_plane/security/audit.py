"""What an account was granted, what it asked for, and where the two differ."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control_plane.operator_runs.process import HOME

Manifest = dict[str, Any]
ANYWHERE = "*"
#: Paths without a resource that every account may read: the discovery of what the API server serves.
DISCOVERY = ("/api", "/apis", "/version")


def username(account: str) -> str:
    """The name under which an account of the operator's namespace stands in the audit log."""
    return f"system:serviceaccount:{HOME}:{account}"


@dataclass(frozen=True, order=True)
class Right:
    """One verb on one resource: in a namespace or `ANYWHERE`, for one object or ("") for all."""

    namespace: str
    group: str
    resource: str
    name: str
    verb: str

    def __str__(self) -> str:
        what = f"{self.resource}.{self.group}".rstrip(".") + (f" {self.name}" if self.name else "")
        return f"{self.verb} {what} in {'all namespaces' if self.namespace == ANYWHERE else self.namespace}"


@dataclass(frozen=True)
class Request:
    """One request as the API server logged it. ``right`` is what it takes; None for a path without a resource."""

    user: str
    verb: str
    path: str
    right: Right | None
    code: int
    forbidden: bool

    def __str__(self) -> str:
        return f"{self.user.rpartition(':')[2]}: {self.verb} {self.path} → {self.code}"


def requests(log: Path, user: str) -> list[Request]:
    """All that a user has asked for so far; a line that is still being written is left out."""
    return [_request(each) for each in _events(log, user) if each["user"]["username"] == user]


def _events(log: Path, about: str) -> Iterator[Manifest]:
    """Read those lines only that name the user: the log of a whole session is long."""
    with log.open(encoding="utf-8") as lines:
        for line in lines:
            if about in line and line.endswith("\n"):
                yield json.loads(line)


def _request(event: Manifest) -> Request:
    reference = event.get("objectRef")
    right = None
    if reference and "resource" in reference:
        resource = "/".join(filter(None, (reference["resource"], reference.get("subresource"))))
        right = Right(
            reference.get("namespace") or ANYWHERE,
            reference.get("apiGroup", ""),
            resource,
            reference.get("name", ""),
            event["verb"],
        )
    decision = event.get("annotations", {}).get("authorization.k8s.io/decision")
    code = event.get("responseStatus", {}).get("code", 0)
    return Request(event["user"]["username"], event["verb"], event["requestURI"], right, code, decision == "forbid")


def granted(manifests: Iterable[Manifest], account: str) -> set[Right]:
    """What the roles that are bound to an account allow."""
    everything = list(manifests)
    roles = {_key(each): each for each in everything if each["kind"] in ("Role", "ClusterRole")}
    found: set[Right] = set()
    for binding in everything:
        if binding["kind"] not in ("RoleBinding", "ClusterRoleBinding"):
            continue
        if account not in [subject["name"] for subject in binding["subjects"]]:
            continue
        kind, home = binding["roleRef"]["kind"], binding["metadata"].get("namespace", "")
        role = roles[kind, home if kind == "Role" else "", binding["roleRef"]["name"]]
        where = home if binding["kind"] == "RoleBinding" else ANYWHERE
        found |= {right for rule in role["rules"] for right in _rights(rule, where)}
    return found


def _key(role: Manifest) -> tuple[str, str, str]:
    return role["kind"], role["metadata"].get("namespace", ""), role["metadata"]["name"]


def _rights(rule: Manifest, namespace: str) -> Iterator[Right]:
    for group in rule["apiGroups"]:
        for resource in rule["resources"]:
            for name in rule.get("resourceNames", [""]):
                for verb in rule["verbs"]:
                    yield Right(namespace, group, resource, name, verb)


def covers(right: Right, used: Right) -> bool:
    """Whether a granted right is enough for a request."""
    same = (right.group, right.resource, right.verb) == (used.group, used.resource, used.verb)
    return same and right.namespace in (ANYWHERE, used.namespace) and right.name in ("", used.name)


def unused(rights: Iterable[Right], asked: Iterable[Request]) -> list[str]:
    """Rights that no request needed, as sentences."""
    used = {each.right for each in asked if each.right is not None}
    return sorted(str(right) for right in rights if not any(covers(right, each) for each in used))


def not_granted(rights: set[Right], asked: Iterable[Request]) -> list[str]:
    """Requests that no right covers, whatever their answer was."""
    found: set[str] = set()
    for each in asked:
        if each.right is None:
            fine = each.verb == "get" and each.path.partition("?")[0].startswith(DISCOVERY)
        else:
            fine = any(covers(right, each.right) for right in rights)
        if not fine:
            found.add(str(each.right or each))
    return sorted(found)
