"""The image that holds every pod's namespaces open, made of the one program built for it."""

import os
import shutil
import tempfile
from pathlib import Path

from cluster import oci
from cluster.node_config import PAUSE_IMAGE


def write_pause_image(bin_dir: Path, layout: Path) -> None:
    """Write it as an OCI layout; root-less and empty but for ``/pause``."""
    with tempfile.TemporaryDirectory() as scratch:
        tree, layer = Path(scratch) / "tree", Path(scratch) / "layer.tar"
        tree.mkdir()
        shutil.copy(bin_dir / "pause", tree / "pause")
        oci.pack(tree, layer)
        digest, size = oci.digest_of(layer), layer.stat().st_size
        home = oci.blob(layout, digest)
        home.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(layer, home)
    machine = os.uname().machine
    config = oci.add_json(
        layout,
        oci.CONFIG,
        {
            "architecture": oci.ARCHITECTURES.get(machine, machine),
            "os": "linux",
            "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
            "rootfs": {"type": "layers", "diff_ids": [digest]},
        },
    )
    layers = [{"mediaType": oci.LAYER, "digest": digest, "size": size}]
    manifest: oci.Json = {"schemaVersion": 2, "mediaType": oci.MANIFEST, "config": config, "layers": layers}
    oci.finish(layout, oci.add_json(layout, oci.MANIFEST, manifest), PAUSE_IMAGE)
