"""Objects of our kinds, and a client that says what the API server refused."""

import itertools
import json
from collections.abc import Iterable
from typing import Any

import pytest
from kubernetes import client

from modelpool_api import INITIAL_STATE, WorkerState, shortest_path
from modelpool_operator.api import names

Manifest = dict[str, Any]
TIME = "2026-01-02T03:04:05Z"
MERGE = "application/merge-patch+json"


def worker(name: str = "minilm", **spec: Any) -> Manifest:
    """A ModelWorker that must be accepted; ``spec`` replaces fields, None removes one."""
    base: Manifest = {
        "pool": "default",
        "model": {"name": "all-minilm-l6-v2", "capability": "text-embedding", "source": "file:///models/minilm"},
        "memory": "8Gi",
    }
    return _object(names.MODEL_WORKER, name, {**base, **spec})


def served(name: str = "minilm", *, change: Manifest | None = None, **spec: Any) -> Manifest:
    """A Model that must be accepted; ``change`` replaces fields of its workers, ``spec`` fields of its own."""
    return _object(names.MODEL, name, {"worker": worker(**(change or {}))["spec"], **spec})


def pool(name: str = "default", **spec: Any) -> Manifest:
    """A ModelPool that must be accepted; ``spec`` replaces fields, None removes one."""
    return _object(names.MODEL_POOL, name, {"memory": "64Gi", **spec})


def _object(kind: str, name: str, spec: Manifest) -> Manifest:
    kept = {field: value for field, value in spec.items() if value is not None}
    return {"apiVersion": names.API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": kept}


def entry(memory_mib: int = 8192, gpus: int = 0, name: str = "minilm") -> Manifest:
    """One reservation."""
    return {"name": name, "podUID": "pod-1", "memoryMiB": memory_mib, "gpus": gpus, "since": TIME}


def moves(*states: str) -> list[Manifest]:
    """The transitions of a worker that passed these states."""
    return [
        {"from": str(start), "to": str(to), "reason": "Test", "time": TIME} for start, to in itertools.pairwise(states)
    ]


def model(**fields: Any) -> Manifest:
    """A spec with other fields of its model."""
    return {"model": {**MINILM, **fields}}


def template(**fields: Any) -> Manifest:
    """A spec with that template."""
    return {"template": fields}


def env(*names: str) -> Manifest:
    """A spec with these environment variables."""
    return template(env=[{"name": name, "value": "1"} for name in names])


MINILM = worker()["spec"]["model"]
#: Every field of a ModelWorker's spec but shutdown, at its bounds where it has some.
FULL = {
    **model(
        source="hf://org/name",
        revision="v1.0",
        dtype="bfloat16",
        tokenSecretRef={"name": "hub"},
        cacheClaim="model-cache",
    ),
    "memory": "2.5Gi",
    "gpus": 2,
    "priority": -1000,
    "idleTimeoutSeconds": 0,
    "evictAfterSeconds": 0,
    "loadDeadlineSeconds": 1,
    "scheduleDeadlineSeconds": 1,
    "drainTimeoutSeconds": 0,
    "restartLimit": 0,
    "eviction": "Never",
    "service": False,
    "template": {
        "resources": {"requests": {"cpu": 1, "memory": "1Gi"}, "limits": {"cpu": "1500m", "ephemeral-storage": "1Gi"}},
        "env": [{"name": "OMP_NUM_THREADS", "value": "2"}],
        "nodeSelector": {"kubernetes.io/arch": "amd64", "example.com/pool": ""},
        "tolerations": [
            {"operator": "Exists"},
            {"key": "nvidia.com/gpu", "value": "present", "effect": "NoExecute", "tolerationSeconds": 60},
        ],
        "priorityClassName": "batch.low",
        "imagePullSecrets": [{"name": "registry"}],
        "labels": {"example.com/team": "blue", "app": "search"},
        "annotations": {"example.com/why": "any text: allowed / here"},
    },
}


class Resources:
    """The objects of one kind in one namespace. Patches are JSON merge patches: None removes."""

    def __init__(self, api: client.ApiClient, namespace: str, plural: str, group: str = names.GROUP) -> None:
        self._api = client.CustomObjectsApi(api)
        self._place = (group, names.VERSION, namespace, plural)

    def create(self, body: Manifest, **options: Any) -> Manifest:
        return self._api.create_namespaced_custom_object(*self._place, body, **options)

    def get(self, name: str) -> Manifest:
        return self._api.get_namespaced_custom_object(*self._place, name)

    def patch(self, name: str, spec: Manifest, **options: Any) -> Manifest:
        return self._api.patch_namespaced_custom_object(
            *self._place, name, {"spec": spec}, _content_type=MERGE, **options
        )

    def patch_status(self, name: str, status: Manifest | None, version: str | None = None, **options: Any) -> Manifest:
        body: Manifest = {"status": status}
        if version is not None:
            body["metadata"] = {"resourceVersion": version}
        return self._api.patch_namespaced_custom_object_status(*self._place, name, body, _content_type=MERGE, **options)

    def walk(self, name: str, to: WorkerState) -> Manifest:
        """Bring a fresh worker to a state, one legal move after the other."""
        path = [INITIAL_STATE, *(shortest_path(INITIAL_STATE, to) or ())]
        self.patch_status(name, {"state": str(path[0]), "reason": "Test"})
        for count in range(2, len(path) + 1):
            self.patch_status(name, {"state": str(path[count - 1]), "transitions": moves(*path[:count])})
        return self.get(name)


def refusals(raised: pytest.ExceptionInfo[client.ApiException]) -> list[tuple[str, str]]:
    """What the API server found wrong: pairs of field ("" for the whole object) and message. It must be a 422."""
    assert raised.value.status == 422, raised.value.body
    causes: Iterable[Manifest] = json.loads(raised.value.body)["details"]["causes"]
    return [(cause.get("field", "").replace("<nil>", ""), cause["message"]) for cause in causes]


def assert_refused(raised: pytest.ExceptionInfo[client.ApiException], field: str, message: str) -> None:
    """The refusal must name that field and say that sentence."""
    found = refusals(raised)
    assert any(field == where and message in said for where, said in found), found
