"""The control plane that the other tests stand on is a real one."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from kubernetes import client, config

from cluster.control_plane import ControlPlane

pytestmark = pytest.mark.control_plane

CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.test.modelpool.dev}
spec:
  group: test.modelpool.dev
  names: {kind: Widget, plural: widgets}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties: {size: {type: integer}}
            x-kubernetes-validations: [{rule: "self.size < 3", message: "size must be below 3, for example 2"}]
"""


def until(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)
    return value


def widget(size: int) -> dict[str, Any]:
    return {"apiVersion": "test.modelpool.dev/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": size}}


def test_a_custom_resource_is_validated_by_the_api_server(apply, kube, namespace):
    apply(CRD)
    extensions = client.ApiextensionsV1Api(kube)

    def established() -> bool:
        status = extensions.read_custom_resource_definition("widgets.test.modelpool.dev").status
        return any(c.type == "Established" and c.status == "True" for c in status.conditions or ())

    until(established)
    try:
        assert apply(widget(2))[0]["metadata"]["namespace"] == namespace
        with pytest.raises(client.ApiException) as refused:
            apply(widget(3))
        assert refused.value.status == 422
        assert "size must be below 3" in refused.value.body
    finally:
        extensions.delete_custom_resource_definition("widgets.test.modelpool.dev")


def test_owned_objects_are_garbage_collected(apply, kube, namespace):
    owner = apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner"}})[0]
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owned", "ownerReferences": [reference]}})
    core = client.CoreV1Api(kube)
    core.delete_namespaced_config_map("owner", namespace)
    until(lambda: "owned" not in {each.metadata.name for each in core.list_namespaced_config_map(namespace).items})


def test_a_client_of_another_user_is_held_by_rbac(control_plane, namespace):
    with config.new_client_from_config(str(control_plane.client_kubeconfig("alice", ["developers"]))) as alice:
        whoami = client.AuthenticationV1Api(alice).create_self_subject_review({}).status.user_info
        assert whoami.username == "alice"
        assert "developers" in whoami.groups
        with pytest.raises(client.ApiException) as refused:
            client.CoreV1Api(alice).list_namespaced_pod(namespace)
        assert refused.value.status == 403


def test_pod_security_standards_are_enforced(apply, kube, namespace):
    enforce = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    client.CoreV1Api(kube).patch_namespace(namespace, enforce)
    pod = {"containers": [{"name": "c", "image": "localhost/none", "securityContext": {"privileged": True}}]}
    with pytest.raises(client.ApiException, match="violates PodSecurity"):
        apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": pod})


def test_every_request_is_in_the_audit_log(control_plane: ControlPlane, kube, namespace):
    client.CoreV1Api(kube).list_namespaced_secret(namespace)

    def recorded() -> bool:
        lines = control_plane.audit_log.read_text().splitlines()
        wanted = f"/api/v1/namespaces/{namespace}/secrets"
        return any(wanted in line and json.loads(line)["verb"] == "list" for line in lines if line.endswith("}"))

    until(recorded, seconds=45)
