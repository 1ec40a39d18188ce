"""Images in a cluster's containerd: loaded from OCI layouts, sending only what it does not have."""

import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cluster import oci
from cluster.host import ClusterError, run

NAME_ANNOTATION = "io.containerd.image.name"
REF_ANNOTATION = "org.opencontainers.image.ref.name"
CHUNK = 4 * 1024 * 1024


@dataclass(frozen=True)
class Loaded:
    """What a load did: the image's name, and how many bytes of it containerd did not have yet."""

    ref: str
    sent_bytes: int


class ImageStore:
    """The images that pods of one node can use (containerd's namespace ``k8s.io``)."""

    def __init__(self, bin_dir: Path, socket: Path) -> None:
        self._ctr = [str(bin_dir / "ctr"), "--address", str(socket), "--namespace", "k8s.io"]

    def refs(self) -> list[str]:
        return [line for line in run([*self._ctr, "images", "ls", "-q"]).splitlines() if not line.startswith("sha256:")]

    def digests(self) -> set[str]:
        """The blobs that containerd holds."""
        return set(run([*self._ctr, "content", "ls", "-q"]).split())

    def load(self, image: Path, ref: str | None = None) -> Loaded:
        """Load an OCI layout folder or an archive (of docker or OCI); ``ref`` names it where it does not itself.

        Raises `ClusterError` when it is neither, holds several images, or is named by nobody.
        """
        if image.is_file():
            said = run([*self._ctr, "images", "import", "--local", image])
            return Loaded(ref or said.split()[1] if said.split()[1:] else str(image), image.stat().st_size)
        index = _read_index(image)
        name = _name(index, image, ref)
        have = self.digests()
        blobs = list(blobs_of(image, index["manifests"][0]["digest"]))
        sent = [digest for digest in blobs if digest not in have]
        try:
            self._import(image, index, name, sent)
        except ClusterError:
            if sent == blobs:
                raise
            # What it had a moment ago it may have thrown away since: it collects what no image holds.
            sent = blobs
            self._import(image, index, name, sent)
        return Loaded(name, sum(oci.blob(image, digest).stat().st_size for digest in sent))

    def _import(self, layout: Path, index: dict[str, Any], name: str, digests: list[str]) -> None:
        command = [*self._ctr, "images", "import", "--local", "-"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as importer:
            assert importer.stdin is not None
            assert importer.stdout is not None
            try:
                with importer.stdin as pipe:
                    write_archive(pipe, layout, named(index, name), digests)
            except BrokenPipeError:
                pass  # it gave up reading: what it says is the error
            said = importer.stdout.read().decode(errors="replace")
        if importer.returncode != 0:
            raise ClusterError(f"containerd did not take the image {name} from {layout}: {said.strip()[-1000:]}")


def blobs_of(layout: Path, manifest_digest: str) -> Iterator[str]:
    """The digests of an image: its manifest, configuration and layers."""
    yield manifest_digest
    manifest = json.loads(oci.blob(layout, manifest_digest).read_text())
    yield manifest["config"]["digest"]
    for layer in manifest["layers"]:
        yield layer["digest"]


def named(index: dict[str, Any], name: str) -> dict[str, Any]:
    """The same index with its one image under that name."""
    entry = {**index["manifests"][0], "annotations": {NAME_ANNOTATION: name, REF_ANNOTATION: name}}
    return {**index, "manifests": [entry]}


def write_archive(pipe: IO[bytes], layout: Path, index: dict[str, Any], digests: list[str]) -> None:
    """Write an OCI archive with only those blobs; a reader that has the others sees a whole image.

    The tar is written by hand: tarfile's own streams copy in small pieces, 30 times slower for some GB.
    """
    documents = {"oci-layout": {"imageLayoutVersion": "1.0.0"}, "index.json": index}
    for name, content in documents.items():
        data = json.dumps(content).encode()
        _write_member(pipe, name, io.BytesIO(data), len(data))
    for digest in digests:
        path = oci.blob(layout, digest)
        with path.open("rb") as blob:
            _write_member(pipe, f"blobs/{digest.replace(':', '/')}", blob, path.stat().st_size)
    pipe.write(bytes(2 * tarfile.BLOCKSIZE))


def _write_member(pipe: IO[bytes], name: str, content: IO[bytes], size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size = size
    pipe.write(member.tobuf())
    shutil.copyfileobj(content, pipe, CHUNK)
    pipe.write(bytes(-size % tarfile.BLOCKSIZE))


def _read_index(layout: Path) -> dict[str, Any]:
    try:
        index: dict[str, Any] = json.loads((layout / "index.json").read_text())
    except (OSError, ValueError) as wrong:
        raise ClusterError(
            f"{layout} is no image: expected an OCI layout folder (with index.json) or an image archive"
        ) from wrong
    if len(index.get("manifests", [])) != 1:
        raise ClusterError(f"{layout} holds {len(index.get('manifests', []))} images; expected exactly one")
    return index


def _name(index: dict[str, Any], layout: Path, ref: str | None) -> str:
    annotations = index["manifests"][0].get("annotations", {})
    name = ref or annotations.get(NAME_ANNOTATION) or annotations.get(REF_ANNOTATION, "")
    if "/" not in name:
        raise ClusterError(f"{layout} has no full name; give one, for example localhost/modelpool/worker:dev")
    return str(name)
