"""The images of this checkout, each built once for its contents and kept as an OCI layout in the cache."""

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path

from cluster import base_image, model_image
from cluster.blob_store import BlobStore
from cluster.buildah import PACKAGES, Storage
from cluster.cache import cached, hash_of
from cluster.host import ClusterError, cache_home, ensure_packages, require_root
from cluster.oci import Image
from cluster.progress import step

CHECKOUT = Path(__file__).resolve().parents[2]
OPERATOR, WORKER, MODEL = "operator", "worker", "model"
ALL = (OPERATOR, WORKER, MODEL)
OPERATOR_MAY_ADD_BYTES = 150_000_000

_FOLDERS = {OPERATOR: "operator", WORKER: "worker_image"}
_SOURCES = {OPERATOR: ("operator/src", "worker_image/src"), WORKER: ("worker_image/src",)}
_COMMON = (".dockerignore", "pyproject.toml", "uv.lock", "operator/pyproject.toml", "worker_image/pyproject.toml")
_RECIPE_VERSION = "1"


def inputs(which: str, checkout: Path = CHECKOUT) -> list[Path]:
    """The files of a checkout that one of our images is built from."""
    files = [checkout / name for name in (*_COMMON, f"{_FOLDERS[which]}/Dockerfile")]
    for folder in _SOURCES[which]:
        files += [path for path in (checkout / folder).rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return sorted(files)


def key(which: str, checkout: Path = CHECKOUT) -> str:
    """The hash of all that decides what is in an image."""
    if which == MODEL:
        return model_image.key(checkout)
    contents = (
        f"{path.relative_to(checkout)} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        for path in inputs(which, checkout)
    )
    return hash_of([_RECIPE_VERSION, base_image.key(), *contents])


def missing(which: Iterable[str] = ALL, checkout: Path = CHECKOUT) -> list[str]:
    """Which of the images would have to be built."""
    return [name for name in which if not (cache_home() / f"image-{name}" / key(name, checkout)).is_dir()]


def build(which: Iterable[str] = ALL, checkout: Path = CHECKOUT) -> dict[str, Image]:
    """Build what is not there yet, and return every asked image by its name.

    Raises:
        ClusterError: a build failed; the message ends with what the build said.

    """
    return {name: model_image.model_image(checkout) if name == MODEL else _ours(name, checkout) for name in which}


def _ours(which: str, checkout: Path) -> Image:
    name = key(which, checkout)
    ref = f"localhost/modelpool/{which}:{name[:12]}"

    def make(folder: Path) -> None:
        require_root("Building images")
        ensure_packages(PACKAGES, "building images")
        base = base_image.base_image()
        storage, store = Storage(), BlobStore(cache_home() / "image-blobs")
        # The newest build has a fixed name, so that older ones become nameless and their layers can be dropped.
        working_name = f"localhost/modelpool/{which}:newest"
        with step(f"Building the {which} image"), storage.ours():
            if not storage.has(base.ref):
                storage.pull(base.oci_dir, base.ref)
            context = _snapshot(which, checkout, storage.scratch / "context", name)
            dockerfile = context / _FOLDERS[which] / "Dockerfile"
            storage.build(dockerfile, context, working_name, {"BASE_IMAGE": base.ref})
            store.add(storage.transport(working_name), f"{which}-{name}")
            storage.prune()
            if which == OPERATOR:
                _check_size(store.layer_sizes(f"{which}-{name}"))
            store.link(f"{which}-{name}", folder, ref)

    return Image(ref, cached(f"image-{which}", name, make))


def _snapshot(which: str, checkout: Path, folder: Path, name: str) -> Path:
    """Copy what an image is built from: an editor may write on while it is built, and its name says what is in it."""
    for source in inputs(which, checkout):
        copy = folder / source.relative_to(checkout)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, copy)
    if key(which, folder) != name:
        raise ClusterError(f"files of the {which} image changed while they were read; run it again")
    return folder


def _check_size(layers: list[int]) -> None:
    added = sum(layers[1:])
    if added > OPERATOR_MAY_ADD_BYTES:
        raise ClusterError(
            f"The operator image adds {added // 1_000_000} MB to its base, more than the "
            f"{OPERATOR_MAY_ADD_BYTES // 1_000_000} MB it may; look for a new dependency in operator/pyproject.toml"
        )


def main() -> None:
    """Build all images and print their names: ``python3 -m cluster.images``."""
    for name, image in build().items():
        print(f"{name:9} {image.ref}  {image.oci_dir}")


if __name__ == "__main__":
    main()
