"""Tiny models of random weights for the tests of the real cluster: as folders, as an image, baked into the worker's.

They are built by the scripts in ``tests/tiny_models``, with the libraries of the development environment.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster import oci
from cluster.cache import cached, hash_of
from cluster.host import run
from cluster.images import CHECKOUT
from cluster.oci import Image
from cluster.progress import step

#: Scripts in ``tests/tiny_models``, each with a function ``build(folder)``; the folders have the same names.
KINDS: Final = ("text_decoder", "image_encoder", "vision_language", "diffusion")
AS_IMAGE: Final = "diffusion"
BAKED: Final = "image_encoder"
#: Where the worker's image has the baked model.
BAKED_PATH: Final = f"/opt/models/{BAKED}"
_BUILD: Final = """
import importlib, pathlib, sys
for kind in sys.argv[2:]:
    importlib.import_module(f"tiny_models.{kind}").build(pathlib.Path(sys.argv[1]) / kind)
"""


@dataclass(frozen=True)
class TinyModels:
    """``folder`` has a folder for each kind, ``image`` one of them at its root, ``worker`` one at `BAKED_PATH`."""

    folder: Path
    image: Image
    worker: Image


def key(checkout: Path = CHECKOUT) -> str:
    """The hash of all that decides what the models are."""
    scripts = sorted((checkout / "tests" / "tiny_models").glob("*.py"))
    return hash_of([_BUILD, *KINDS], [*scripts, checkout / "uv.lock"])


def build(worker: Image, worker_key: str, checkout: Path = CHECKOUT) -> TinyModels:
    """Build what is not there yet; ``worker`` is the worker's image, ``worker_key`` names its contents.

    Raises:
        ClusterError: a script failed; the message ends with what it said.

    """
    models = key(checkout)
    folder = cached("tiny-models", models, lambda target: _run_scripts(target, checkout))
    ref = f"localhost/modelpool/tiny-{AS_IMAGE}:{models[:12]}"
    image = Image(ref, cached("image-tiny", models, lambda target: _pack(folder / AS_IMAGE, target, ref)))
    both = hash_of([worker_key, models])
    baked_ref = f"localhost/modelpool/worker-with-model:{both[:12]}"
    baked = cached("image-baked", both, lambda target: _bake(folder / BAKED, worker, target, baked_ref))
    return TinyModels(folder, image, Image(baked_ref, baked))


def _run_scripts(target: Path, checkout: Path) -> None:
    with step("Building tiny models"):
        python = checkout / ".venv" / "bin" / "python"
        run(
            [python, "-c", _BUILD, target, *KINDS],
            env={"PYTHONPATH": str(checkout / "tests"), "HF_HUB_OFFLINE": "1"},
            timeout=300,
        )
        for path in target.rglob("*"):  # pods read them as another user
            path.chmod(0o755 if path.is_dir() else 0o644)


def _pack(model: Path, target: Path, ref: str) -> None:
    layer = target / "layer.tar"
    oci.pack(model, layer)
    oci.write_image(target, ref, layer, {"org.opencontainers.image.title": f"tiny {AS_IMAGE}"})


def _bake(model: Path, worker: Image, target: Path, ref: str) -> None:
    tree, layer = target / "tree", target / "layer.tar"
    shutil.copytree(model, tree / BAKED_PATH.lstrip("/"))
    oci.pack(tree, layer)
    shutil.rmtree(tree)
    oci.add_layer(worker.oci_dir, target, ref, layer, "a model, copied in")


def environment(models: TinyModels) -> dict[str, str]:
    """The environment variables that tell the tests where they are."""
    return {
        "MODELPOOL_E2E_TINY_MODELS": os.fspath(models.folder),
        "MODELPOOL_E2E_TINY_IMAGE": models.image.ref,
        "MODELPOOL_E2E_BAKED_WORKER_IMAGE": models.worker.ref,
    }
