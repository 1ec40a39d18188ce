"""The virtual environments of the peers, made once from the exact releases in ``peers/*.txt``."""

import re
import tomllib
from pathlib import Path

from cluster import uv
from cluster.cache import cached, hash_of
from cluster.host import run
from cluster.progress import step

FOLDER = Path(__file__).with_name("peers")
TITLES = {"infinity": "infinity-emb", "current": "LitServe and transformers serve"}


def environment(name: str, python: Path) -> Path:
    """The virtual environment of ``peers/NAME.txt`` for the same Python as ``python``.

    Raises `ClusterError` where it cannot be installed.
    """
    requirements = FOLDER / f"{name}.txt"
    version = run([python, "-c", "import sys; print(sys.version, sys.base_prefix)"])

    def make(folder: Path) -> None:
        program = uv.ensure()
        with step(f"Installing {TITLES[name]} from PyPI"):
            # relocatable: it is moved to its place in the cache when it is whole
            run([program, "venv", "--quiet", "--relocatable", "--allow-existing", "--python", python, folder])
            run([program, "pip", "sync", "--quiet", "--python", folder / "bin/python", requirements], timeout=1800)

    return cached(f"bench-{name}", hash_of([version], [requirements]), make)


def pinned(requirements: Path) -> dict[str, str]:
    """Package → release of a requirements file; of several for different machines the first."""
    found: dict[str, str] = {}
    for line in requirements.read_text().splitlines():
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;]+)", line)
        if match:
            found.setdefault(match[1].lower(), match[2])
    return found


def locked(lock_file: Path) -> dict[str, str]:
    """Package → release of a uv.lock."""
    return {each["name"]: each.get("version", "") for each in tomllib.loads(lock_file.read_text())["package"]}
