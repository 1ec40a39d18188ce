"""What is derived is fresh: the chart's CRDs and the plain manifest."""

import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]
CRDS = sorted((ROOT / "crds").glob("*.yaml"))
RENDER = [sys.executable, str(ROOT / "charts" / "render.py")]


def crds_of(objects):
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == "CustomResourceDefinition"}


def test_the_charts_crds_are_the_generated_ones_byte_for_byte():
    done = subprocess.run([*RENDER, "crds", "--check"], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    copies = sorted((ROOT / "charts" / "modelpool" / "files" / "crds").glob("*.yaml"))
    assert [path.read_bytes() for path in CRDS] == [path.read_bytes() for path in copies]
    assert len(copies) == 3


def test_the_plain_manifest_needs_no_helm_afterwards():
    """No hook is in it, and its namespace comes first."""
    text = (ROOT / "charts" / "plain" / "modelpool.yaml").read_text()
    objects = [document for document in yaml.safe_load_all(text) if document]

    assert objects[0]["kind"] == "Namespace"
    assert objects[0]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert "helm.sh/hook" not in text
    assert len(crds_of(objects)) == 3
    homes = {each["metadata"].get("namespace", objects[0]["metadata"]["name"]) for each in objects[1:]}
    assert homes == {objects[0]["metadata"]["name"]}


def test_chart_images_and_packages_have_one_version():
    chart = yaml.safe_load((ROOT / "charts" / "modelpool" / "Chart.yaml").read_text())
    pages = [ROOT / "pyproject.toml", ROOT / "operator" / "pyproject.toml", ROOT / "worker_image" / "pyproject.toml"]
    versions = {tomllib.loads(page.read_text())["project"]["version"] for page in pages}

    assert versions == {chart["appVersion"]} == {chart["version"]}
