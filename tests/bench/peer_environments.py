"""The virtual environments of the peers, made once from the exact releases in ``peers/*.txt``."""

import re
import tomllib
from pathlib import Path

from cluster import environments

FOLDER = Path(__file__).with_name("peers")
TITLES = {"infinity": "infinity-emb", "current": "LitServe and transformers serve", "litellm": "LiteLLM"}


def environment(name: str, python: Path) -> Path:
    """The virtual environment of ``peers/NAME.txt`` for the same Python as ``python``.

    Raises `ClusterError` where it cannot be installed.
    """
    return environments.environment(f"bench-{name}", TITLES[name], FOLDER / f"{name}.txt", python)


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
