"""CRDs and plain manifest as helm renders them."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.control_plane

ROOT = Path(__file__).resolve().parents[3]
RENDER = [sys.executable, str(ROOT / "charts" / "render.py")]
KEEP = {"helm.sh/resource-policy": "keep"}


def crds_of(objects):
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == "CustomResourceDefinition"}


@pytest.fixture(scope="module")
def generated():
    """The CRDs by name, as they are generated from the models."""
    found = {
        document["metadata"]["name"]: document
        for path in (ROOT / "crds").glob("*.yaml")
        for document in [yaml.safe_load(path.read_text())]
    }
    assert found
    return found


def test_crds_are_rendered_unchanged_and_kept_on_uninstall(render, generated):
    rendered = crds_of(render())

    for crd in rendered.values():
        assert crd["metadata"].pop("annotations") == KEEP
    assert generated == rendered


@pytest.mark.parametrize(
    ("values", "kept"), [({"crds": {"keep": False}}, False), ({"crds": {"keep": True}}, True)], ids=["removed", "kept"]
)
def test_crds_may_be_left_to_the_uninstall(values, kept, render):
    found = [crd["metadata"].get("annotations", {}) == KEEP for crd in crds_of(render(values)).values()]

    assert found == [kept, kept, kept]


def test_crds_may_be_managed_elsewhere(render):
    assert crds_of(render({"crds": {"install": False}})) == {}


def test_the_plain_manifest_is_fresh(helm):
    done = subprocess.run(
        [*RENDER, "plain", "--check", "--helm", str(helm)], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
