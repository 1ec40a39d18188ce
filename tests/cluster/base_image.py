"""The base image of both our images where no registry can be asked: Python from Debian's packages."""

from pathlib import Path

from cluster.buildah import CONTAINED
from cluster.cache import cached, hash_of
from cluster.host import run
from cluster.oci import Image, write_image
from cluster.progress import step

SUITE = "bookworm"
PACKAGES = ("python3", "python3-venv", "ca-certificates")
_OPTIONS = (
    "--variant=minbase",
    f"--include={','.join(PACKAGES)}",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
)


def key() -> str:
    """Names the base image; part of the key of every image built on it."""
    return hash_of([SUITE, *_OPTIONS])


def base_image() -> Image:
    """The base image, made at most once on a machine."""
    ref = f"localhost/modelpool/python-base:{key()[:12]}"

    def make(folder: Path) -> None:
        with step(f"Making the base image from Debian {SUITE}"):
            archive = folder / "base.tar"
            run([*CONTAINED, "mmdebstrap", "--quiet", *_OPTIONS, SUITE, archive], env={"TMPDIR": str(folder)})
            write_image(folder, ref, archive, {"org.opencontainers.image.title": "python-base"})

    return Image(ref, cached("image-base", key(), make))
