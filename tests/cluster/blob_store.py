"""The layers of all built images, once each and compressed, in one folder that the images' own layouts link into.

An image is copied in as plain tar layers, whose digest is known before they are read: a layer that is there already
is not read again, so a change of our code is copied in no time beside several GB of dependencies. Large layers are
then compressed; an empty file of the same name and size stands in for the tar, so that it goes on being recognised.
"""

import json
import os
import subprocess
from pathlib import Path

from cluster.buildah import CONTAINED
from cluster.host import run
from cluster.oci import LAYER, Json, add_json, blob, digest_of, finish

COMPRESS_FROM_BYTES = 1_000_000
LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"


class BlobStore:
    """One folder: an OCI layout of everything, and beside it a note per compressed layer."""

    def __init__(self, folder: Path) -> None:
        self.layout = folder / "layout"
        self.notes = folder / "compressed"

    def add(self, source: str, name: str) -> None:
        """Copy the image ``source`` (as skopeo names it) in as ``name``."""
        self.layout.mkdir(parents=True, exist_ok=True)
        self.notes.mkdir(parents=True, exist_ok=True)
        self.tidy()
        command = ["skopeo", "copy", "--quiet", "--insecure-policy", "--dest-oci-accept-uncompressed-layers"]
        # contained: reading a storage leaves a mount behind otherwise
        run([*CONTAINED, *command, source, f"oci:{self.layout}:{name}"])
        for layer in self._manifest(name)["layers"]:
            if layer["size"] >= COMPRESS_FROM_BYTES:
                self._compress(layer["digest"])

    def link(self, name: str, target: Path, ref: str) -> None:
        """Make ``target`` a layout of the image ``name``, called ``ref`` by pods; blobs are hard links."""
        manifest = self._manifest(name)
        manifest["layers"] = [self._compressed(layer) for layer in manifest["layers"]]
        for part in (manifest["config"], *manifest["layers"]):
            copy = blob(target, part["digest"])
            copy.parent.mkdir(parents=True, exist_ok=True)
            if not copy.exists():
                copy.hardlink_to(blob(self.layout, part["digest"]))
        finish(target, add_json(target, manifest["mediaType"], manifest), ref)

    def layer_sizes(self, name: str) -> list[int]:
        """Bytes of each layer of an image, unpacked, the base first."""
        return [layer["size"] for layer in self._manifest(name)["layers"]]

    def tidy(self) -> None:
        """Drop what no image links to any more."""
        blobs = self.layout / "blobs" / "sha256"
        kept = set()
        for note in self.notes.glob("*"):
            packed = blob(self.layout, json.loads(note.read_text())["digest"])
            if packed.exists() and packed.stat().st_nlink > 1:
                kept |= {note.name, packed.name}
            else:
                note.unlink()
        for path in blobs.glob("*"):
            if path.name not in kept and path.stat().st_nlink == 1:
                path.unlink()
        index_file = self.layout / "index.json"
        if index_file.exists():
            index = json.loads(index_file.read_text())
            index["manifests"] = [each for each in index["manifests"] if blob(self.layout, each["digest"]).exists()]
            index_file.write_text(json.dumps(index))

    def _manifest(self, name: str) -> Json:
        index = json.loads((self.layout / "index.json").read_text())
        for entry in index["manifests"]:
            if entry.get("annotations", {}).get("org.opencontainers.image.ref.name") == name:
                manifest: Json = json.loads(blob(self.layout, entry["digest"]).read_text())
                return {**manifest, "mediaType": entry["mediaType"]}
        raise LookupError(f"{self.layout} holds no image named {name!r}")

    def _compress(self, digest: str) -> None:
        plain = blob(self.layout, digest)
        note = self.notes / plain.name
        if not note.exists():
            packed = plain.with_name(f".{plain.name}.zst")
            with packed.open("wb") as out:
                subprocess.run(["zstd", "-q", "-1", "-T0", "-c", plain], stdout=out, check=True)
            descriptor: Json = {"mediaType": LAYER_ZSTD, "digest": digest_of(packed), "size": packed.stat().st_size}
            packed.rename(blob(self.layout, descriptor["digest"]))
            note.write_text(json.dumps(descriptor))
        if plain.stat().st_blocks:
            stand_in = plain.with_name(f".{plain.name}.empty")
            with stand_in.open("wb") as out:
                os.truncate(out.fileno(), plain.stat().st_size)
            stand_in.rename(plain)

    def _compressed(self, layer: Json) -> Json:
        note = self.notes / blob(self.layout, layer["digest"]).name
        packed: Json = json.loads(note.read_text()) if note.exists() else {**layer, "mediaType": LAYER}
        return packed
