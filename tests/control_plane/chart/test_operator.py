"""The operator and its drain under the chart's own accounts: the rights are enough, and none is missed silently."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config

from cluster import binaries
from cluster.control_plane import ControlPlane
from cluster.host import free_ports

pytestmark = pytest.mark.control_plane

CHART = Path(__file__).resolve().parents[3] / "charts" / "modelpool"
HOME, TEAM = "modelpool-system", "team-a"
GROUP = ("modelpool.dev", "v1alpha1")
POOL = {"apiVersion": "modelpool.dev/v1alpha1", "kind": "ModelPool", "metadata": {"name": "default"}}
POOL |= {"spec": {"memory": "4Gi"}}
MODEL = {"name": "m", "capability": "text-embedding", "source": "file:///models/m"}
WORKER = {"apiVersion": "modelpool.dev/v1alpha1", "kind": "ModelWorker", "metadata": {"name": "minilm"}}
WORKER |= {"spec": {"pool": "default", "memory": "1Gi", "model": MODEL}}


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.1)
    return value


class Installation:
    """A release on a control plane of its own; its programs run here, as the accounts that the chart made for them."""

    def __init__(self, cluster: ControlPlane, api: client.ApiClient, folder: Path, values: dict[str, Any]) -> None:
        self.cluster, self.core, self.folder = cluster, client.CoreV1Api(api), folder
        self.objects = client.CustomObjectsApi(api)
        for name in (HOME, TEAM):
            self.core.create_namespace({"metadata": {"name": name}})
        bin_dir = binaries.ensure(["helm", "kube"])
        environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig), "HOME": str(folder)}
        common = ["modelpool", str(CHART), "--namespace", HOME, "--values", "-"]
        text = yaml.safe_dump(values)

        def helm(*arguments: str) -> str:
            command = [bin_dir / "helm", *arguments]
            return subprocess.run(
                command, env=environment, input=text, text=True, check=True, stdout=subprocess.PIPE
            ).stdout

        helm("install", *common)
        self.manifests = [each for each in yaml.safe_load_all(helm("template", *common)) if each]
        wanted = {"ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}
        hooks = [each for each in self.manifests if each["kind"] in wanted and "drain" in each["metadata"]["name"]]
        subprocess.run(
            [bin_dir / "kubectl", "apply", "-f", "-"],
            env=environment,
            input=yaml.safe_dump_all(hooks),
            text=True,
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def start(self, kind: str) -> "subprocess.Popen[bytes]":
        """Start what the chart's Deployment or Job would run, with its arguments, environment and account."""
        (manifest,) = [each for each in self.manifests if each["kind"] == kind]
        pod = manifest["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        variables = {each["name"]: each.get("value", "") for each in container["env"]}
        variables |= {"MODELPOOL_OPERATOR_NAMESPACE": HOME, "MODELPOOL_OPERATOR_POD_NAME": "operator-0"}
        ports = map(str, free_ports(2))
        variables |= {"MODELPOOL_OPERATOR_METRICS_PORT": next(ports), "MODELPOOL_OPERATOR_PROBE_PORT": next(ports)}
        kubeconfig = self.kubeconfig(pod["serviceAccountName"])
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "KUBECONFIG": str(kubeconfig)}
        with (self.folder / f"{kind}.log").open("wb") as log:
            return subprocess.Popen(
                [Path(sys.executable).parent / "modelpool-operator", *container["args"]],
                env={**environment, **variables},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def kubeconfig(self, account: str) -> Path:
        token = self.core.create_namespaced_service_account_token(account, HOME, {"spec": {"audiences": []}})
        content = yaml.safe_load(self.cluster.kubeconfig.read_text())
        content["users"] = [{"name": each["name"], "user": {"token": token.status.token}} for each in content["users"]]
        path = self.folder / f"{account}.kubeconfig"
        path.write_text(yaml.safe_dump(content))
        return path

    def create(self, plural: str, body: dict[str, Any]) -> None:
        self.objects.create_namespaced_custom_object(*GROUP, TEAM, plural, body)

    def delete(self, plural: str, name: str) -> None:
        self.objects.delete_namespaced_custom_object(*GROUP, TEAM, plural, name)

    def all(self, plural: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.objects.list_namespaced_custom_object(*GROUP, TEAM, plural)["items"]
        return found

    def get(self, plural: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.objects.get_namespaced_custom_object(*GROUP, TEAM, plural, name)
        return found

    def refused(self) -> list[str]:
        """What the API server refused to the chart's accounts for want of a right."""
        lines = map(json.loads, self.cluster.audit_log.read_text().splitlines())
        return [
            f"{each['user']['username']}: {each['verb']} {each['requestURI']}"
            for each in lines
            if each["user"]["username"].startswith(f"system:serviceaccount:{HOME}:modelpool")
            and each.get("responseStatus", {}).get("code") == 403
        ]


@pytest.fixture(params=[{}, {"watchNamespaces": [TEAM]}], ids=["cluster-wide", "namespaced"])
def installation(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Installation]:
    with (
        ControlPlane(tmp_path / "state", audit=True) as cluster,
        config.new_client_from_config(str(cluster.kubeconfig)) as api,
    ):
        yield Installation(cluster, api, tmp_path, request.param)


def test_the_rights_are_enough_from_the_first_reservation_to_the_last_finalizer(installation):
    """A worker gets its pod and its entry, the drain ends it, and an uninstall leaves nothing that hangs."""
    operator = installation.start("Deployment")
    try:
        installation.create("modelpools", POOL)
        installation.create("modelworkers", WORKER)
        until(lambda: installation.get("modelpools", "default").get("status", {}).get("ledger"))
        (pod,) = until(lambda: installation.core.list_namespaced_pod(TEAM).items)
        until(lambda: not installation.core.read_namespaced_pod(pod.metadata.name, TEAM).spec.scheduling_gates)
        until(lambda: installation.core.list_namespaced_event(TEAM).items)

        drain = installation.start("Job")
        assert drain.wait(60) == 0, (installation.folder / "Job.log").read_text()

        assert installation.get("modelworkers", "minilm")["status"]["state"] == "Dead"
        assert installation.core.list_namespaced_pod(TEAM).items == []
        assert installation.get("modelpools", "default")["status"]["reserved"] == {"memoryMiB": 0, "gpus": 0}
        assert operator.poll() is None, (installation.folder / "Deployment.log").read_text()
    finally:
        operator.terminate()
        operator.wait(30)

    assert installation.refused() == []
    for plural, name in (("modelworkers", "minilm"), ("modelpools", "default")):
        assert "finalizers" not in installation.get(plural, name)["metadata"], plural


@pytest.mark.parametrize("installation", [{}], ids=["cluster-wide"], indirect=True)
def test_a_pool_that_is_made_anew_gets_a_token_of_its_own(installation):
    """The old pool's Secret is still there for a moment, and then collected; no pod may wait for that one."""
    operator = installation.start("Deployment")
    try:
        for _ in range(3):
            installation.create("modelpools", POOL)
            installation.create("modelworkers", WORKER)
            until(lambda: installation.core.list_namespaced_pod(TEAM).items)
            pool = installation.get("modelpools", "default")["metadata"]["uid"]
            secret = installation.core.read_namespaced_secret("modelpool-default-token", TEAM)
            assert [owner.uid for owner in secret.metadata.owner_references] == [pool]
            for plural, name in (("modelworkers", "minilm"), ("modelpools", "default")):
                installation.delete(plural, name)
            for plural in ("modelworkers", "modelpools"):
                until(lambda plural=plural: installation.all(plural) == [])
    finally:
        operator.terminate()
        operator.wait(30)
    assert installation.refused() == []
