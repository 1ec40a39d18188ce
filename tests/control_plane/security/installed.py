"""The chart's accounts and rights on a control plane, without its pods: tests run the programs themselves."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, utils

from cluster import binaries
from control_plane.operator_runs.process import HOME, OperatorProcess
from control_plane.operator_runs.site import Site

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "charts" / "modelpool"
PLAIN = ROOT / "charts" / "plain" / "modelpool.yaml"
RIGHTS = ("ServiceAccount", "ClusterRole", "Role", "ClusterRoleBinding", "RoleBinding")

Manifest = dict[str, Any]


def rendered(values: Manifest | None = None, release: str = "modelpool") -> str:
    """What helm makes of the chart, hooks included."""
    helm = binaries.ensure(["helm"]) / "helm"
    command = [helm, "template", release, str(CHART), "--namespace", HOME, "--values", "-"]
    done = subprocess.run(command, input=json.dumps(values or {}), text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Installed:
    """Accounts, roles and bindings of one release, those of its hooks too. The operator's namespace must exist."""

    def __init__(self, site: Site, folder: Path, release: str, values: Manifest | None = None) -> None:
        self._site, self._folder = site, folder
        self._values = values or {}
        manifests = [each for each in yaml.safe_load_all(rendered(self._values, release)) if each]
        self.rights = [each for each in manifests if each["kind"] in RIGHTS]
        for manifest in self.rights:
            utils.create_from_dict(site.api, manifest)
        (self.account,) = [_pod(each)["serviceAccountName"] for each in manifests if each["kind"] == "Deployment"]
        (self.drain_account,) = [_pod(each)["serviceAccountName"] for each in manifests if each["kind"] == "Job"]

    def operator(self, name: str = "a", **settings: str) -> OperatorProcess:
        """An operator of this release, to be started; ``name`` is its pod's."""
        folder = self._folder / f"{self.account}-{name}"
        folder.mkdir()
        given = {"LEASE_NAME": self.account, "POD_NAME": name, **settings}
        return OperatorProcess(folder, self._kubeconfig(self.account), self._values.get("watchNamespaces"), **given)

    def drain(self) -> None:
        """Run what the chart's hook runs before an uninstall."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self._folder),
            "KUBECONFIG": str(self._kubeconfig(self.drain_account)),
            "MODELPOOL_OPERATOR_WATCH_NAMESPACES": json.dumps(self._values.get("watchNamespaces", [])),
        }
        program = Path(sys.executable).parent / "modelpool-operator"
        command = [program, "drain", "--timeout", "30"]
        done = subprocess.run(command, env=environment, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def _kubeconfig(self, account: str) -> Path:
        core = client.CoreV1Api(self._site.api)
        token = core.create_namespaced_service_account_token(account, HOME, {"spec": {"audiences": []}})
        content = json.loads(self._site.cluster.kubeconfig.read_text())
        content["users"] = [{"name": each["name"], "user": {"token": token.status.token}} for each in content["users"]]
        path = self._folder / f"{account}.kubeconfig"
        path.write_text(json.dumps(content))
        return path


def _pod(manifest: Manifest) -> Manifest:
    found: Manifest = manifest["spec"]["template"]["spec"]
    return found
