"""The product as a user installs it: the chart, by helm, with the real images."""

import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml
from kubernetes import client

from e2e.machine import processes_with, until

CHART = Path(__file__).resolve().parents[2] / "charts" / "modelpool"
RELEASE, SYSTEM = "modelpool", "modelpool-system"
OPERATOR_PODS = "app.kubernetes.io/component=operator,app.kubernetes.io/instance=modelpool"
GATEWAY_PODS = "app.kubernetes.io/component=gateway,app.kubernetes.io/instance=modelpool"
#: In the environment of the operator's process: the name of its pod.
OPERATOR_VARIABLE = "MODELPOOL_OPERATOR_POD_NAME"
VARIABLES = {
    "kubeconfig": "KUBECONFIG",
    "operator_image": "MODELPOOL_E2E_OPERATOR_IMAGE",
    "worker_image": "MODELPOOL_E2E_WORKER_IMAGE",
    "model_image": "MODELPOOL_E2E_MODEL_IMAGE",
    "tiny_models": "MODELPOOL_E2E_TINY_MODELS",
    "tiny_image": "MODELPOOL_E2E_TINY_IMAGE",
    "baked_worker_image": "MODELPOOL_E2E_BAKED_WORKER_IMAGE",
    "helm": "HELM",
    "kubectl": "KUBECTL",
}


@dataclass(frozen=True)
class Environment:
    """Where the cluster is, and which images its node has.

    ``tiny_models`` is a folder with a folder for each tiny model. ``tiny_image`` is one of them as an image,
    ``baked_worker_image`` the worker's image with another one in it.
    """

    kubeconfig: str
    operator_image: str
    worker_image: str
    model_image: str
    tiny_models: str
    tiny_image: str
    baked_worker_image: str
    helm: str
    kubectl: str

    @classmethod
    def read(cls, variables: Mapping[str, str]) -> Self:
        """Take it from environment variables; raises ``RuntimeError`` naming those that are missing."""
        missing = [name for name in VARIABLES.values() if not variables.get(name)]
        if missing:
            raise RuntimeError(
                f"the end-to-end tests need {', '.join(missing)}; run them with: make test-e2e "
                "(it brings the cluster up, loads the images and sets these)"
            )
        return cls(**{field: variables[name] for field, name in VARIABLES.items()})


class Installation:
    """The release on the cluster; ``values`` are the chart's."""

    def __init__(self, environment: Environment, api: client.ApiClient, home: Path, values: dict[str, Any]) -> None:
        self.environment = environment
        self.core = client.CoreV1Api(api)
        self._variables = {**os.environ, "KUBECONFIG": environment.kubeconfig, "HOME": str(home)}
        self._values = values

    def install(self, **more: Any) -> None:
        """Install it, or bring an installation that is there to these values; returns once all of it is ready.

        ``more`` are further values of the chart, by their first key; those of the worker besides what is there.
        """
        if "worker" in more:
            more["worker"] = {**self._values["worker"], **more["worker"]}
        words = ["upgrade", RELEASE, CHART, "--install", "--create-namespace", "--wait", "--timeout=180s"]
        self.helm(*words, "--values=-", stdin=yaml.safe_dump({**self._values, **more}))

    def uninstall(self) -> None:
        """Uninstall it; returns once it is gone."""
        self.helm("uninstall", RELEASE, "--ignore-not-found", "--wait", "--timeout=180s")

    def helm(self, *words: str | Path, stdin: str = "") -> str:
        """What helm prints; fails with what it complains about."""
        return self._run(self.environment.helm, *words, f"--namespace={SYSTEM}", stdin=stdin).stdout

    def kubectl(self, *words: str, stdin: str = "") -> str:
        """What kubectl prints; fails with what it complains about."""
        return self._run(self.environment.kubectl, *words, stdin=stdin).stdout

    def refused(self, *words: str, stdin: str = "") -> str:
        """What kubectl complains about; fails when it does not."""
        done = self._run(self.environment.kubectl, *words, stdin=stdin, check=False)
        assert done.returncode != 0, f"kubectl {' '.join(words)} was expected to be refused, it said: {done.stdout}"
        return done.stderr

    def gateway_pods(self, namespace: str) -> list[client.V1Pod]:
        """A namespace's gateways that are not on their way out."""
        pods = self.core.list_namespaced_pod(namespace, label_selector=GATEWAY_PODS).items
        return [pod for pod in pods if pod.metadata.deletion_timestamp is None]

    def operator_pods(self) -> list[client.V1Pod]:
        """The operator's pods that are not on their way out."""
        pods = self.core.list_namespaced_pod(SYSTEM, label_selector=OPERATOR_PODS).items
        return [pod for pod in pods if pod.metadata.deletion_timestamp is None]

    def operator_log(self, lines: int = 60) -> str:
        """The end of what the operator said."""
        logs = [
            self.core.read_namespaced_pod_log(pod.metadata.name, SYSTEM, tail_lines=lines)
            for pod in self.operator_pods()
        ]
        return "\n".join(logs)

    def kill_operator(self) -> str:
        """Delete the operator's pod and kill its process, so that it tidies nothing up; returns the pod's uid."""
        (pod,) = self.operator_pods()
        processes = processes_with(OPERATOR_VARIABLE, pod.metadata.name)
        assert processes, "expected the operator's process on this machine"
        self.core.delete_namespaced_pod(pod.metadata.name, SYSTEM, grace_period_seconds=0)
        for process in processes:
            os.kill(process, signal.SIGKILL)
        until(lambda: not processes_with(OPERATOR_VARIABLE, pod.metadata.name), "the operator's process is gone")
        return str(pod.metadata.uid)

    def wait_for_operator(self, other_than: str) -> client.V1Pod:
        """The operator's pod once it is ready and not the one of that uid any more."""

        def ready() -> list[client.V1Pod]:
            others = [pod for pod in self.operator_pods() if pod.metadata.uid != other_than]
            return [pod for pod in others if ("Ready", "True") in _conditions(pod)]

        return until(ready, "a new operator pod is ready", 90)[0]

    def _run(
        self, program: str, *words: str | Path, stdin: str, check: bool = True
    ) -> "subprocess.CompletedProcess[str]":
        command = [program, *map(str, words)]
        done = subprocess.run(
            command, env=self._variables, input=stdin, text=True, capture_output=True, timeout=300, check=False
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)} failed: {done.stderr or done.stdout}")
        return done


def chart_values(environment: Environment, hub: str) -> dict[str, Any]:
    """The chart's values for these images and this model hub, with short times."""
    return {
        "operator": {
            "image": _image(environment.operator_image),
            "maintenanceSeconds": 1,
            "sweepSeconds": 10,
            "leaseSeconds": 5,
        },
        "worker": {
            "image": _image(environment.worker_image),
            "images": {"image-embedding": environment.baked_worker_image},
            "hfEndpoint": hub,
        },
        "drainOnUninstall": {"timeoutSeconds": 120},
    }


def _image(reference: str) -> dict[str, str]:
    repository, _, tag = reference.rpartition(":")
    return {"repository": repository, "tag": tag}


def _conditions(pod: client.V1Pod) -> set[tuple[str, str]]:
    return {(each.type, each.status) for each in pod.status.conditions or ()}
