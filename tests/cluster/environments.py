"""Virtual environments of exact releases from PyPI, apart from the development environment; made once and kept."""

from pathlib import Path

from cluster import uv
from cluster.cache import cached, hash_of
from cluster.host import run
from cluster.progress import step

CHECKOV = Path(__file__).parents[1] / "control_plane" / "security" / "checkov.txt"


def environment(kind: str, title: str, requirements: Path, python: Path) -> Path:
    """The environment of a requirements file for the same Python as ``python``.

    Raises `ClusterError` where it cannot be installed.
    """
    version = run([python, "-c", "import sys; print(sys.version, sys.base_prefix)"])

    def make(folder: Path) -> None:
        program = uv.ensure()
        with step(f"Installing {title} from PyPI"):
            # relocatable: it is moved to its place in the cache when it is whole
            run([program, "venv", "--quiet", "--relocatable", "--allow-existing", "--python", python, folder])
            run([program, "pip", "sync", "--quiet", "--python", folder / "bin/python", requirements], timeout=1800)

    return cached(kind, hash_of([version], [requirements]), make)


def checkov(python: Path) -> Path:
    """The program that looks for what is unsafe in manifests. Raises as `environment` does."""
    return environment("checkov", "checkov", CHECKOV, python) / "bin" / "checkov"
