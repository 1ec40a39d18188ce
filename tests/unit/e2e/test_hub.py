"""The hub that the end-to-end tests load from is one that the hub's own client library understands."""

import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e import repositories as hubs
from e2e.hub import Hub

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from huggingface_hub import errors, snapshot_download


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub("127.0.0.1") as running:
        yield running


def download(hub: Hub, folder: Path, name: str) -> Path:
    return Path(snapshot_download(f"org/{name}", endpoint=hub.url, cache_dir=folder, token=False))


def test_a_whole_repository_arrives_as_it_is(hub, tmp_path):
    found = download(hub, tmp_path, "whole")

    assert {str(each.relative_to(found)) for each in found.rglob("*") if each.is_file()} == set(hubs.real_model())
    assert (found / hubs.WEIGHTS).read_bytes() == hubs.real_model()[hubs.WEIGHTS]


def test_paced_weights_take_as_long_as_the_name_says(hub, tmp_path):
    began = time.monotonic()
    found = download(hub, tmp_path, "paced-2s")

    assert time.monotonic() - began >= 1.9
    assert (found / hubs.WEIGHTS).stat().st_size == len(hubs.real_model()[hubs.WEIGHTS])


def test_truncated_weights_are_what_the_hub_calls_the_whole_file(hub, tmp_path):
    found = download(hub, tmp_path, "truncated")

    assert (found / hubs.WEIGHTS).stat().st_size == hubs.TRUNCATED_BYTES


@pytest.mark.parametrize(
    ("name", "error"),
    [
        pytest.param("no-such-model", errors.RepositoryNotFoundError, id="missing"),
        pytest.param("forbidden", errors.GatedRepoError, id="forbidden"),
        pytest.param("failing", errors.LocalEntryNotFoundError, id="failing"),
    ],
)
def test_a_refusal_is_the_error_that_the_library_has_for_it(hub, tmp_path, name, error):
    with pytest.raises(error):
        download(hub, tmp_path, name)
