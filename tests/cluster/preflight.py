"""What a machine must have for the real cluster, asked before anything is started, answered in one sentence."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cluster import binaries, images
from cluster.buildah import PACKAGES as IMAGE_PACKAGES
from cluster.buildah import download_cache
from cluster.host import cache_home, is_root, missing_packages
from cluster.real import PACKAGES, STATE_ROOT, Cluster

MEMORY_BYTES = 6_000_000_000
GO_BUILD_GB, PROGRAMS_GB, WHEELS_GB, WORKER_BUILD_GB, OPERATOR_BUILD_GB, NODE_GB = 10.0, 1.0, 6.0, 16.0, 1.0, 10.0
MACHINES = ("x86_64", "aarch64")


@dataclass(frozen=True)
class Machine:
    """What was found; sizes in bytes."""

    system: str
    machine: str
    root: bool
    memory: int
    control_groups: bool
    network_namespaces: bool
    overlay: bool
    packages_missing: tuple[str, ...]
    apt: bool
    #: per file system: a folder on it, bytes free, bytes that the run will write
    disks: tuple[tuple[str, int, int], ...]


def obstacles(machine: Machine) -> list[str]:
    """Why the real cluster cannot run there, each as part of a sentence; empty when it can."""
    if machine.system != "linux":
        return [f"it needs Linux, this is {machine.system}"]
    found = []
    if not machine.root:
        found.append("it needs root (network namespaces, mounts, control groups), by sudo for example")
    if machine.machine not in MACHINES:
        found.append(f"it runs on {' and '.join(MACHINES)}, this is {machine.machine}")
    if machine.memory < MEMORY_BYTES:
        found.append(f"it needs {MEMORY_BYTES / 1e9:.0f} GB of memory, this machine has {machine.memory / 1e9:.1f} GB")
    if not machine.control_groups:
        found.append("it needs control groups, and /sys/fs/cgroup is not mounted")
    if machine.root and not machine.network_namespaces:
        found.append("it needs network namespaces, and the kernel refuses to make one")
    if not machine.overlay:
        found.append("it needs the overlay file system, and the kernel has none")
    if machine.packages_missing and not machine.apt:
        found.append(f"it needs {' '.join(machine.packages_missing)}, and there is no apt-get to install them with")
    for folder, free, needed in machine.disks:
        if free < needed:
            found.append(
                f"it will write up to {needed / 1e9:.0f} GB below {folder}, where {free / 1e9:.1f} GB are free"
            )
    return found


def sentence(what: str, found: Iterable[str], other_way: str) -> str:
    """One sentence: what cannot run, all reasons, and the way that remains."""
    return f"{what} cannot run here: {'; '.join(found)}. {other_way}"


def this_machine(cluster: str) -> Machine:
    """Look around; nothing is changed."""
    packages = (*PACKAGES, *(IMAGE_PACKAGES if images.missing() else ()))
    return Machine(
        system=sys.platform,
        machine=os.uname().machine,
        root=is_root(),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        control_groups=any(Path("/sys/fs/cgroup").glob("*")),
        network_namespaces=_can_make_network_namespace(),
        overlay=_has_overlay(),
        packages_missing=tuple(missing_packages(packages)),
        apt=shutil.which("apt-get") is not None,
        disks=_disks(cluster),
    )


def _disks(cluster: str) -> tuple[tuple[str, int, int], ...]:
    """What is not there yet has to be downloaded, built and stored: per file system, generously."""
    unbuilt = [name for name in binaries.REAL_CLUSTER if not _is_built(name)]
    unmade = images.missing()
    cold_go = bool(unbuilt) and not (Path.home() / ".cache" / "go-build").exists()
    wheels = images.WORKER in unmade and not download_cache().exists()
    in_cache = PROGRAMS_GB * bool(unbuilt) + OPERATOR_BUILD_GB * (images.OPERATOR in unmade)
    if images.WORKER in unmade and not (cache_home() / "buildah" / "root").exists():
        in_cache += WORKER_BUILD_GB
    needs = [
        (cache_home(), in_cache),
        (Path.home(), GO_BUILD_GB * cold_go),
        (download_cache(), WHEELS_GB * wheels),
        (STATE_ROOT, NODE_GB * (not (STATE_ROOT / cluster).exists())),
    ]
    found: dict[int, tuple[str, int, int]] = {}
    for folder, gigabytes in needs:
        there = next(each for each in (folder, *folder.parents) if each.exists())
        name, free, needed = found.get(there.stat().st_dev, (str(there), shutil.disk_usage(there).free, 0))
        found[there.stat().st_dev] = (name, free, needed + int(gigabytes * 1e9))
    return tuple(found.values())


def _is_built(program: str) -> bool:
    return (cache_home() / program / binaries.build_key(program)).is_dir()


def _can_make_network_namespace() -> bool:
    if sys.platform != "linux" or not is_root() or shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode == 0


def _has_overlay() -> bool:
    known = Path("/proc/filesystems")
    if known.exists() and "overlay" in known.read_text():
        return True
    return shutil.which("modprobe") is not None and (
        subprocess.run(["modprobe", "overlay"], capture_output=True, check=False).returncode == 0
    )


def require(what: str, other_way: str, cluster: str) -> None:
    """End the program with the sentence when the cluster of that name cannot run here."""
    if is_root() and Cluster(cluster).running():
        return
    found = obstacles(this_machine(cluster))
    if found:
        sys.exit(sentence(what, found, other_way))
