"""Our CRDs on the session's API server, and short ways to write to them."""

import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
from kubernetes import client

from cluster import binaries
from control_plane.crds.resources import Resources
from modelpool_operator.api import crd, names

ESTABLISHED_SECONDS = 20.0


@pytest.fixture(scope="session")
def install(admin: client.ApiClient) -> Callable[[dict[str, Any]], None]:
    """``install(definition)``: put a CRD on the API server, or change it, and wait until it is served."""
    extensions = client.ApiextensionsV1Api(admin)

    def install(definition: dict[str, Any]) -> None:
        name = definition["metadata"]["name"]
        try:
            extensions.create_custom_resource_definition(definition)
        except client.ApiException as error:
            if error.status != 409:
                raise
            there = extensions.read_custom_resource_definition(name)
            version = {"resourceVersion": there.metadata.resource_version}
            body = {**definition, "metadata": {**definition["metadata"], **version}}
            extensions.replace_custom_resource_definition(name, body)
        deadline = time.monotonic() + ESTABLISHED_SECONDS
        while True:
            conditions = extensions.read_custom_resource_definition(name).status.conditions or []
            if any(each.type == "Established" and each.status == "True" for each in conditions):
                return
            assert time.monotonic() < deadline, [(each.type, each.status, each.message) for each in conditions]
            time.sleep(0.05)

    return install


@pytest.fixture(scope="session")
def crds(install: Callable[[dict[str, Any]], None]) -> None:
    for definition in crd.definitions().values():
        install(definition)


@pytest.fixture
def workers(crds: None, kube: client.ApiClient, namespace: str) -> Resources:
    return Resources(kube, namespace, names.MODEL_WORKERS)


@pytest.fixture
def pools(crds: None, kube: client.ApiClient, namespace: str) -> Resources:
    return Resources(kube, namespace, names.MODEL_POOLS)


@pytest.fixture
def models(crds: None, kube: client.ApiClient, namespace: str) -> Resources:
    return Resources(kube, namespace, names.MODELS)


@pytest.fixture
def kubectl(control_plane: Any, namespace: str) -> Callable[..., str]:
    """``kubectl("get", "mw")``: what it prints, in the test's namespace."""
    program = binaries.ensure(["kube"]) / "kubectl"

    def kubectl(*arguments: str) -> str:
        command = [program, "--kubeconfig", control_plane.kubeconfig, "--namespace", namespace, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    return kubectl
