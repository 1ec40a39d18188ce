"""URL paths of the resources that the operator touches."""

from modelpool_operator.api import names

_CUSTOM = f"/apis/{names.GROUP}/{names.VERSION}"


def workers(namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
    """Return the path of ModelWorkers: all, a namespace's, or one."""
    return _path(_CUSTOM, names.MODEL_WORKERS, namespace, name, subresource)


def pools(namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
    """Return the path of ModelPools: all, a namespace's, or one."""
    return _path(_CUSTOM, names.MODEL_POOLS, namespace, name, subresource)


def models(namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
    """Return the path of Models: all, a namespace's, or one."""
    return _path(_CUSTOM, names.MODELS, namespace, name, subresource)


def pods(namespace: str | None = None, name: str | None = None) -> str:
    """Return the path of Pods."""
    return _path("/api/v1", "pods", namespace, name)


def services(namespace: str, name: str | None = None) -> str:
    """Return the path of Services."""
    return _path("/api/v1", "services", namespace, name)


def secrets(namespace: str, name: str | None = None) -> str:
    """Return the path of Secrets."""
    return _path("/api/v1", "secrets", namespace, name)


def leases(namespace: str, name: str | None = None) -> str:
    """Return the path of Leases."""
    return _path("/apis/coordination.k8s.io/v1", "leases", namespace, name)


def events(namespace: str) -> str:
    """Return the path of Events."""
    return _path("/apis/events.k8s.io/v1", "events", namespace, None)


def _path(base: str, plural: str, namespace: str | None, name: str | None, subresource: str | None = None) -> str:
    parts = [base]
    if namespace is not None:
        parts += ["namespaces", namespace]
    parts.append(plural)
    if name is not None:
        parts.append(name)
    if subresource is not None:
        parts.append(subresource)
    return "/".join(parts)
