"""How much memory this process may still take: what the machine and its cgroup leave; and what tells that it was none.

Imports torch where it is needed only.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import torch

    from modelpool_worker.models.devices import Cuda

_CGROUP: Final = Path("/sys/fs/cgroup")
_MACHINE: Final = Path("/proc/meminfo")
#: How torch says it on the CPU, where it has no class of its own for it.
_NO_MEMORY: Final = "can't allocate memory"


def free_bytes(device: "torch.device", cuda: "Cuda | None" = None) -> int:
    """Return the bytes that are free for this process on the device now; on a CPU its cgroup counts as well.

    ``cuda`` is what is asked of GPUs; None: torch.
    """
    if device.type == "cuda":
        import torch

        return int((cuda or torch.cuda).mem_get_info(device)[0])
    return free_of(_text(_MACHINE), *(_text(_CGROUP / f"memory.{name}") for name in ("max", "current", "stat")))


def free_of(machine: str, maximum: str, current: str, stat: str) -> int:
    """Return free bytes by the texts of /proc/meminfo and the cgroup's memory.max, memory.current and memory.stat.

    Files that the kernel has cached and can drop count as free. What cannot be read bounds nothing.
    """
    free = _number(machine, "MemAvailable:") * 1024
    if not maximum.strip().isdigit():
        return free
    taken = _number(f"current {current}", "current") - _number(stat, "inactive_file")
    return max(0, min(free, int(maximum) - taken))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a calculation ended because there was no memory for it, on the CPU or on a GPU."""
    if isinstance(error, MemoryError):
        return True
    torch = sys.modules.get("torch")  # what was never imported has raised nothing, and takes seconds to import
    of_gpu = torch is not None and isinstance(error, torch.OutOfMemoryError)
    return of_gpu or (isinstance(error, RuntimeError) and _NO_MEMORY in str(error))


def _number(text: str, name: str) -> int:
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == name and words[1].isdigit():
            return int(words[1])
    return 0


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
