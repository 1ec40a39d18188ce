"""Images are named by what is in them, and their layers are kept once."""

import json
import re
import shutil

import pytest

from cluster import images, oci, uv
from cluster.blob_store import BlobStore
from cluster.images import CHECKOUT, MODEL, OPERATOR, WORKER, key


@pytest.fixture
def checkout(tmp_path):
    """The parts of this checkout that images are made of."""
    copy = tmp_path / "checkout"
    for name in (".dockerignore", "pyproject.toml", "uv.lock"):
        copy.mkdir(exist_ok=True)
        shutil.copy(CHECKOUT / name, copy / name)
    for folder in ("operator", "worker_image"):
        shutil.copytree(CHECKOUT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def keys(checkout):
    return {name: key(name, checkout) for name in images.ALL}


@pytest.mark.parametrize(
    ("changed", "renamed"),
    [
        pytest.param("operator/src/modelpool_operator/settings.py", {OPERATOR}, id="operator code"),
        pytest.param("worker_image/src/modelpool_worker/__main__.py", {OPERATOR, WORKER}, id="worker code"),
        pytest.param("worker_image/Dockerfile", {WORKER}, id="a Dockerfile"),
        pytest.param("operator/pyproject.toml", {OPERATOR, WORKER}, id="what uv resolves"),
        pytest.param("operator/README", set(), id="a file that no image holds"),
        pytest.param("operator/src/modelpool_operator/__pycache__/x.cpython-311.pyc", set(), id="bytecode"),
    ],
)
def test_an_image_has_another_name_exactly_when_its_contents_change(checkout, changed, renamed):
    before = keys(checkout)
    path = checkout / changed
    path.parent.mkdir(exist_ok=True)
    with path.open("ab") as file:
        file.write(b"\n# changed\n")
    after = keys(checkout)
    assert {name for name in images.ALL if before[name] != after[name]} == renamed


def test_a_source_file_that_moves_changes_the_name(checkout):
    before = key(WORKER, checkout)
    source = checkout / "worker_image/src/modelpool_worker"
    (source / "logs.py").rename(source / "capabilities" / "logs.py")
    assert key(WORKER, checkout) != before


def test_two_checkouts_with_the_same_contents_share_their_images(checkout):
    assert keys(checkout) == keys(CHECKOUT)


def test_the_model_is_the_one_that_the_lock_names(checkout):
    before = key(MODEL, checkout)
    lock = checkout / "uv.lock"
    lock.write_text(lock.read_text().replace("b9a0018dff090c14", "0000000000000000"))
    assert key(MODEL, checkout) != before


@pytest.mark.parametrize("folder", ["operator", "worker_image"])
def test_images_are_built_by_the_uv_that_sets_up_the_environment(folder):
    said = set(re.findall(r"ARG UV_VERSION=(\S+)", (CHECKOUT / folder / "Dockerfile").read_text()))
    assert said == {uv.VERSION}


@pytest.fixture
def store(tmp_path):
    """A blob store with one image, ``first``."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_text("content")
    oci.pack(tree, tmp_path / "layer.tar")
    made = BlobStore(tmp_path / "store")
    made.layout.mkdir(parents=True)
    made.notes.mkdir()
    oci.write_image(made.layout, "first", tmp_path / "layer.tar", {})
    return made


def test_a_linked_image_is_whole_and_takes_no_room(store, tmp_path):
    target = tmp_path / "image"
    target.mkdir()
    store.link("first", target, "localhost/test/first:1")
    descriptor = oci.manifest_of(target, "localhost/test/first:1")
    manifest = json.loads(oci.blob(target, descriptor["digest"]).read_text())
    (layer,) = manifest["layers"]
    assert oci.blob(target, layer["digest"]).samefile(oci.blob(store.layout, layer["digest"]))
    assert oci.digest_of(oci.blob(target, manifest["config"]["digest"])) == manifest["config"]["digest"]


def test_tidying_keeps_what_an_image_links_to_and_drops_the_rest(store, tmp_path):
    target = tmp_path / "image"
    target.mkdir()
    store.link("first", target, "localhost/test/first:1")
    used = {path.name for path in (target / "blobs/sha256").iterdir() if path.stat().st_nlink > 1}
    store.tidy()
    assert {path.name for path in (store.layout / "blobs/sha256").iterdir()} == used
    shutil.rmtree(target)
    store.tidy()
    assert list((store.layout / "blobs/sha256").iterdir()) == []
    assert json.loads((store.layout / "index.json").read_text())["manifests"] == []


def test_an_image_with_one_more_layer_is_the_other_one_and_that_layer(store, tmp_path):
    base, target, tree = (tmp_path / name for name in ("base", "target", "added"))
    for folder in (base, target, tree):
        folder.mkdir()
    store.link("first", base, "localhost/test/first:1")
    (tree / "model").write_text("weights")
    oci.pack(tree, tmp_path / "added.tar")
    oci.add_layer(base, target, "localhost/test/second:1", tmp_path / "added.tar", "a model")

    before, after = (json.loads(oci.blob(each, oci.manifest_of(each)["digest"]).read_text()) for each in (base, target))
    assert after["layers"][:-1] == before["layers"]
    assert oci.digest_of(oci.blob(target, after["layers"][-1]["digest"])) == after["layers"][-1]["digest"]
    assert oci.blob(target, before["layers"][0]["digest"]).samefile(oci.blob(base, before["layers"][0]["digest"]))
    config = json.loads(oci.blob(target, after["config"]["digest"]).read_text())
    assert config["rootfs"]["diff_ids"][-1] == after["layers"][-1]["digest"]
    assert len(config["rootfs"]["diff_ids"]) == len(config["history"]) == 2


def test_the_same_files_pack_to_the_same_bytes(tmp_path):
    archives = []
    for name in ("one", "two"):
        tree = tmp_path / name
        (tree / "folder").mkdir(parents=True)
        (tree / "folder" / "file").write_text("content")
        oci.pack(tree, tmp_path / f"{name}.tar")
        archives.append((tmp_path / f"{name}.tar").read_bytes())
    assert archives[0] == archives[1]
