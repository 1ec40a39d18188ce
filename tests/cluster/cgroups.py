"""The control groups of a cluster's pods, in the hierarchies of version 1 or the one of version 2."""

import contextlib
import os
import time
from pathlib import Path

from cluster.processes import Identity

MOUNT = Path("/sys/fs/cgroup")
REMOVE_SECONDS = 10.0


def folders(name: str, mount: Path = MOUNT) -> list[Path]:
    """The group ``name`` at the top of every hierarchy, whether it is there or not."""
    if (mount / "cgroup.controllers").exists():
        return [mount / name]
    hierarchies = {path.resolve() for path in mount.iterdir() if path.is_dir()}
    return [path / name for path in sorted(hierarchies)]


def create(name: str) -> None:
    for folder in folders(name):
        folder.mkdir(exist_ok=True)


def exists(name: str) -> bool:
    return any(folder.exists() for folder in folders(name))


def processes(name: str) -> list[Identity]:
    """All processes in the group and the groups below it."""
    pids: set[int] = set()
    for folder in folders(name):
        for below, _, _ in os.walk(folder):
            with contextlib.suppress(OSError):
                pids.update(int(pid) for pid in (Path(below) / "cgroup.procs").read_text().split())
    return [identity for pid in pids if (identity := Identity.of(pid))]


def remove(name: str) -> bool:
    """Remove the group and those below it; False when something in it did not end in time."""
    deadline = time.monotonic() + REMOVE_SECONDS
    while exists(name):
        for folder in folders(name):
            for below, _, _ in os.walk(folder, topdown=False):
                with contextlib.suppress(OSError):  # busy for a moment after its last process
                    Path(below).rmdir()
        if exists(name):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
    return True
