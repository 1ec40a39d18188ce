"""OCI image layouts as folders, written without any tool: how images travel between the parts of this package.

A layout folder holds ``oci-layout``, ``index.json`` and ``blobs/sha256/…``.
"""

import hashlib
import json
import os
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

Json = dict[str, Any]  # a document of the OCI specifications


@dataclass(frozen=True)
class Image:
    """One image on this machine: what pods call it, and the layout folder it can be loaded from."""

    ref: str
    oci_dir: Path


def digest_of(path: Path) -> str:
    """``sha256:…`` of a file's bytes."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def blob(layout: Path, digest: str) -> Path:
    """Where a layout keeps the blob of that digest."""
    algorithm, _, value = digest.partition(":")
    return layout / "blobs" / algorithm / value


def manifest_of(layout: Path, name: str | None = None) -> Json:
    """The descriptor of a layout's image: the one with that name, or its only one.

    Raises:
        LookupError: there is no such image, or several and no name was given.

    """
    index = json.loads((layout / "index.json").read_text())
    found: list[Json] = [
        entry
        for entry in index["manifests"]
        if name is None or entry.get("annotations", {}).get("org.opencontainers.image.ref.name") == name
    ]
    if len(found) != 1:
        raise LookupError(f"{layout} holds {len(found)} images named {name!r}; expected exactly one")
    return found[0]


def write_image(target: Path, ref: str, layer: Path, labels: dict[str, str]) -> None:
    """Write a one-layer image from a tar file, which is moved into the layout."""
    diff_id = digest_of(layer)
    size = layer.stat().st_size
    home = blob(target, diff_id)
    home.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(layer, home)
    machine = os.uname().machine
    config = add_json(
        target,
        CONFIG,
        {
            "architecture": ARCHITECTURES.get(machine, machine),
            "os": "linux",
            "config": {"Labels": labels},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [{"created_by": "one layer, copied as it is"}],
        },
    )
    manifest: Json = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config,
        "layers": [{"mediaType": LAYER, "digest": diff_id, "size": size}],
    }
    finish(target, add_json(target, MANIFEST, manifest), ref)


def add_layer(base: Path, target: Path, ref: str, layer: Path, why: str) -> None:
    """Write the image of the layout ``base`` with one more layer: a tar file, which is moved into ``target``.

    Its other blobs are hard links; ``why`` goes into its history.
    """
    manifest = json.loads(blob(base, manifest_of(base)["digest"]).read_text())
    config = json.loads(blob(base, manifest["config"]["digest"]).read_text())
    for part in manifest["layers"]:
        copy = blob(target, part["digest"])
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.hardlink_to(blob(base, part["digest"]))
    diff_id = digest_of(layer)
    manifest["layers"].append({"mediaType": LAYER, "digest": diff_id, "size": layer.stat().st_size})
    shutil.move(layer, blob(target, diff_id))
    config["rootfs"]["diff_ids"].append(diff_id)
    config.setdefault("history", []).append({"created_by": why})
    manifest["config"] = {**manifest["config"], **add_json(target, CONFIG, config)}
    finish(target, add_json(target, MANIFEST, manifest), ref)


def pack(folder: Path, archive: Path) -> None:
    """Pack a folder's contents into a tar that depends on names, modes and bytes alone (root-owned, no times)."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.mtime = 0
        member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
        return member

    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(folder.rglob("*")):
            tar.add(path, arcname=str(path.relative_to(folder)), recursive=False, filter=plain)


def add_json(layout: Path, media_type: str, content: Json) -> Json:
    """Write a document as a blob and return its descriptor."""
    data = json.dumps(content, sort_keys=True).encode()
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    path = blob(layout, digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


def finish(layout: Path, descriptor: Json, ref: str) -> None:
    """Make the folder a layout of that one image, named ``ref``."""
    # containerd names an image by the first annotation, other tools by the second.
    names = {"io.containerd.image.name": ref, "org.opencontainers.image.ref.name": ref}
    entry = {key: descriptor[key] for key in ("mediaType", "digest", "size")} | {"annotations": names}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
    (layout / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
    (layout / "index.json").write_text(json.dumps(index))
