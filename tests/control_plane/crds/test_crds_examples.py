"""The API server takes what the examples show."""

from pathlib import Path

import pytest
import yaml

from modelpool_api import Capability

pytestmark = pytest.mark.control_plane

EXAMPLES = Path(__file__).parents[3] / "examples"
FILES = sorted(EXAMPLES.rglob("*.yaml"))


def read(path):
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_an_example_is_accepted_as_it_is(workers, pools, models, path):
    manifest = read(path)
    kind = {"ModelWorker": workers, "ModelPool": pools, "Model": models}[manifest["kind"]]
    written = kind.create(manifest, field_validation="Strict")
    assert (
        written["spec"].items()
        >= {key: value for key, value in manifest["spec"].items() if key not in ("model", "worker")}.items()
    )


def test_there_is_an_example_of_every_capability():
    shown = {read(path)["spec"]["model"]["capability"] for path in (EXAMPLES / "capabilities").iterdir()}
    assert shown == set(Capability)
