"""What a source means, and which are refused."""

import pytest

from modelpool_worker.errors import NeverLoadsError
from modelpool_worker.models.hub import Hub
from modelpool_worker.models.sources import Source, fetch, parse

NOBODY = Hub(endpoint="http://127.0.0.1:9", token=None, waits=())


@pytest.mark.parametrize(
    ("source", "revision", "path", "parsed"),
    [
        ("file:///m", "", "", ("file", "/m", None)),
        ("pvc://claim/a", "", "/models/a", ("mounted", "/models/a", None)),
        ("oci://registry/image:1", "", "/models", ("mounted", "/models", None)),
        ("hf://org/name", "", "", ("hf", "org/name", None)),
        ("hf://org/name@v1", "ignored", "", ("hf", "org/name", "v1")),
        ("hf://org/name", "v2", "", ("hf", "org/name", "v2")),
    ],
    ids=lambda value: str(value)[:24],
)
def test_sources(source, revision, path, parsed):
    assert parse(source, revision, path) == Source(*parsed, source)


@pytest.mark.parametrize(
    "source",
    ["", "/m", "file://m", "pvc://claim", "s3://b", "hf://", "hf://a/b/c", "hf://a b", "hf://org/n@", "hf://ö/n"],
)
def test_an_unknown_source_never_loads(source):
    with pytest.raises(NeverLoadsError, match="expected"):
        parse(source, "", "")


@pytest.mark.parametrize("source", ["file://{}", "pvc://claim", "oci://image"])
def test_a_folder_is_taken_where_it_is_and_no_hub_is_asked(tmp_path, source):
    parsed = parse(source.format(tmp_path), "", str(tmp_path))
    assert fetch(parsed, cache_dir=tmp_path / "cache", hub=NOBODY) == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_never_loads(tmp_path):
    with pytest.raises(NeverLoadsError, match="is not a folder in this worker"):
        fetch(parse(f"file://{tmp_path}/none", "", ""), cache_dir=tmp_path, hub=NOBODY)
