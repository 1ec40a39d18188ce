"""A Kubernetes that the product is installed on: how to call it, and where it finds images and model."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.host import ClusterError, run

CHART = Path(__file__).resolve().parents[2] / "charts" / "modelpool"
RELEASE, SYSTEM_NAMESPACE = "modelpool", "modelpool-system"
INSTALL_SECONDS = 180
LINE_CHARS = 300


@dataclass(frozen=True)
class Target:
    """``prefix`` goes before every command, ``environment`` is added to the present one."""

    title: str
    prefix: tuple[str, ...]
    environment: Mapping[str, str]
    operator_image: str
    worker_image: str
    #: ``spec.model.source`` of the demo's worker
    model_source: str
    #: what a person types to get a shell that reaches this cluster; empty: any shell does
    shell: str

    def kubectl(self, *words: str | Path, stdin: str | None = None, timeout: float = 120.0) -> str:
        """What kubectl prints; raises `ClusterError` with what it complains about."""
        return run([*self.prefix, "kubectl", *words], env=self.environment, stdin=stdin, timeout=timeout)

    def stream(self, *words: str) -> "subprocess.Popen[str]":
        """A kubectl that goes on printing, such as a watch; end it when done."""
        return subprocess.Popen(
            [*self.prefix, "kubectl", *words],
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def helm(self, *words: str | Path, timeout: float = 600.0) -> str:
        """What helm prints; raises `ClusterError` with what it complains about."""
        command = [*self.prefix, "helm", *words, "--namespace", SYSTEM_NAMESPACE]
        return run(command, env=self.environment, timeout=timeout)

    def install(self, *more: str) -> None:
        """Install the chart, or bring what is installed to this version; returns once all of it is ready.

        ``more`` are further values, as helm's ``--set`` takes them.
        """
        values = [*more, *_image("operator", self.operator_image), *_image("worker", self.worker_image)]
        words = [
            *(f"--set={value}" for value in values),
            "--create-namespace",
            "--wait",
            f"--timeout={INSTALL_SECONDS}s",
        ]
        try:
            self.helm("upgrade", "--install", RELEASE, CHART, *words)
        except ClusterError:
            print(f"\nWhat the operator says:\n{self.operator_story()}", file=sys.stderr)
            raise

    def uninstall(self) -> None:
        """Drain and remove the release; nothing there is fine.

        The drain runs in a pod, which an image that cannot be pulled would hold up: without workers none is asked for.
        """
        words = ["uninstall", RELEASE, "--ignore-not-found", "--wait", "--timeout=300s"]
        self.helm(*words, *([] if self._has_workers() else ["--no-hooks"]))

    def _has_workers(self) -> bool:
        try:
            return bool(self.kubectl("get", "modelworkers.modelpool.dev", "--all-namespaces", "-o=name").strip())
        except ClusterError:  # without the CRD there are none
            return False

    def operator_story(self) -> str:
        """The operator's pods and the end of its log, for when something went wrong."""
        place = ("--namespace", SYSTEM_NAMESPACE)
        told = []
        for words in (
            ("get", "pods", "-o", "wide"),
            ("logs", "-l", "app.kubernetes.io/component=operator", "--tail=20"),
        ):
            try:
                told.append(self.kubectl(*words, *place, timeout=20.0))
            except ClusterError as error:
                told.append(str(error))
        return "\n".join(line[:LINE_CHARS] for part in told for line in part.splitlines())


def _image(part: str, reference: str) -> list[str]:
    repository, _, tag = reference.rpartition(":")
    return [f"{part}.image.repository={repository}", f"{part}.image.tag={tag}"]
