"""How many CPUs this process may really use: what its affinity and its cgroup leave."""

import math
import os
from pathlib import Path
from typing import Final

_CPU_MAX: Final = Path("/sys/fs/cgroup/cpu.max")


def usable_cpus(affinity: int, cpu_max: str) -> int:
    """Return whole CPUs, at least 1; ``cpu_max`` is the cgroup's file, such as ``150000 100000`` (1.5) or ``max …``."""
    quota, _, period = cpu_max.strip().partition(" ")
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        return max(1, min(affinity, math.ceil(int(quota) / int(period))))
    return max(1, affinity)


def count_cpus() -> int:
    """Return the CPUs that this process may use now."""
    try:
        cpu_max = _CPU_MAX.read_text()
    except OSError:
        cpu_max = "max"
    return usable_cpus(len(os.sched_getaffinity(0)), cpu_max)
