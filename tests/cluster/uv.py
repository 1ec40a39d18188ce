"""uv for machines that have none: ``python3 -m cluster.uv sync`` runs it, from PATH or from a venv in the cache."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from cluster.cache import cached, hash_of
from cluster.host import ClusterError, ensure_packages, is_root, run
from cluster.progress import step

VERSION = "0.13.9"


def ensure() -> Path:
    """The uv on PATH, else the one that PyPI carries."""
    found = shutil.which("uv")
    if found is not None:
        return Path(found)
    has_pip = (
        subprocess.run([sys.executable, "-c", "import ensurepip"], capture_output=True, check=False).returncode == 0
    )
    if not has_pip and is_root():  # Debian has it in a package of its own
        ensure_packages(["python3-venv"], "the development environment")

    def install(folder: Path) -> None:
        with step(f"Installing uv {VERSION} from PyPI"):
            run([sys.executable, "-m", "venv", folder])
            run([folder / "bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check", f"uv=={VERSION}"])

    return cached("uv", hash_of([VERSION, sys.version]), install) / "bin" / "uv"


def main() -> None:
    try:
        uv = ensure()
    except ClusterError as error:
        sys.exit(f"error: {error}")
    os.execv(uv, [str(uv), *sys.argv[1:]])


if __name__ == "__main__":
    main()
