"""What is sent of an image: an archive of the missing parts that reads like a whole one."""

import io
import json
import tarfile

import pytest

from cluster import oci
from cluster.host import ClusterError
from cluster.image_store import ImageStore, blobs_of, named, write_archive


@pytest.fixture
def layout(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_text("content")
    oci.pack(tree, tmp_path / "layer.tar")
    folder = tmp_path / "layout"
    folder.mkdir()
    oci.write_image(folder, "localhost/test:1", tmp_path / "layer.tar", {})
    return folder


def test_an_image_is_its_manifest_configuration_and_layers(layout):
    manifest = oci.manifest_of(layout)["digest"]
    assert next(iter(blobs_of(layout, manifest))) == manifest
    assert {digest.partition(":")[2] for digest in blobs_of(layout, manifest)} == {
        path.name for path in (layout / "blobs/sha256").iterdir()
    }


def test_an_archive_holds_only_the_blobs_asked_for(layout):
    index = json.loads((layout / "index.json").read_text())
    manifest = oci.manifest_of(layout)["digest"]
    pipe = io.BytesIO()
    write_archive(pipe, layout, named(index, "localhost/other:2"), [manifest])
    with tarfile.open(fileobj=io.BytesIO(pipe.getvalue())) as tar:
        assert set(tar.getnames()) == {"oci-layout", "index.json", f"blobs/sha256/{manifest.partition(':')[2]}"}
        sent = json.load(tar.extractfile("index.json"))
    assert sent["manifests"][0]["annotations"]["io.containerd.image.name"] == "localhost/other:2"


@pytest.mark.parametrize(
    ("index", "sentence"),
    [
        pytest.param(None, "expected an OCI layout folder", id="no index"),
        pytest.param("{", "expected an OCI layout folder", id="broken index"),
        pytest.param('{"manifests": []}', "holds 0 images; expected exactly one", id="empty index"),
        pytest.param('{"manifests": [{"digest": "sha256:0"}]}', "has no full name", id="nameless image"),
    ],
)
def test_what_is_no_image_is_refused_before_anything_is_sent(tmp_path, index, sentence):
    if index is not None:
        (tmp_path / "index.json").write_text(index)
    store = ImageStore(tmp_path / "no-binaries-here", tmp_path / "no-socket")
    with pytest.raises(ClusterError, match=sentence):
        store.load(tmp_path)
