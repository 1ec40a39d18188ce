"""The chart as helm renders it."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import binaries

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "charts" / "modelpool"

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]


@pytest.fixture(scope="session")
def chart() -> Path:
    """The chart's folder."""
    return CHART


@pytest.fixture(scope="session")
def helm() -> Path:
    """The helm that the local clusters use."""
    return binaries.ensure(["helm"]) / "helm"


@pytest.fixture(scope="session")
def run_helm(helm: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """``run_helm("template", …, values={…})``: what helm printed and how it ended."""

    def run(*arguments: str, values: Manifest | None = None) -> "subprocess.CompletedProcess[str]":
        given = ["--values", "-"] if values else []
        text = yaml.safe_dump(values) if values else None
        return subprocess.run([helm, *arguments, *given], input=text, text=True, capture_output=True, check=False)

    return run


@pytest.fixture(scope="session")
def render(run_helm: Callable[..., "subprocess.CompletedProcess[str]"]) -> Render:
    """``render({…values…}, release=…, namespace=…)``: all objects, hooks included."""

    def render(values: Manifest | None = None, release: str = "modelpool", namespace: str = "ops") -> list[Manifest]:
        done = run_helm("template", release, str(CHART), "--namespace", namespace, values=values)
        assert done.returncode == 0, done.stderr
        return [document for document in yaml.safe_load_all(done.stdout) if document]

    return render
