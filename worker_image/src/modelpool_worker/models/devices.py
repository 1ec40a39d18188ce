"""On what a model runs: the device that was promised, and the number format that suits it. Imports torch."""

import re
from pathlib import Path
from typing import Any, Final, Protocol

import torch

from modelpool_worker.capabilities.base import DType
from modelpool_worker.errors import RetryLoadError

_MIB: Final = 1024 * 1024
#: From this compute capability on NVIDIA GPUs calculate in bfloat16 by themselves.
_NATIVE_BFLOAT16: Final = 8
_CPU_INFO: Final = Path("/proc/cpuinfo")
#: How Linux calls the CPU instructions that multiply in bfloat16: "flags" on x86, "Features" on ARM.
_BFLOAT16_FLAGS: Final = {"flags": {"avx512_bf16", "amx_bf16"}, "Features": {"bf16"}}


class Cuda(Protocol):
    """What is asked of GPUs, as ``torch.cuda`` answers it. Sizes are bytes."""

    def is_available(self) -> bool:
        """Return whether there is a GPU that can be used."""
        ...

    def get_device_capability(self, device: Any) -> tuple[int, int]:
        """Return NVIDIA's number of what the GPU can do, such as (9, 0)."""
        ...

    def mem_get_info(self, device: Any) -> tuple[int, int]:
        """Return what is free on the GPU, whoever uses the rest, and what it has."""
        ...

    def memory_reserved(self, device: Any) -> int:
        """Return what this process holds there."""
        ...


def choose_device(gpus: int, cuda: Cuda = torch.cuda) -> torch.device:
    """Return the first GPU where any was promised, else the CPU; raise ``RetryLoadError`` where torch finds none."""
    if gpus == 0:
        return torch.device("cpu")
    if not cuda.is_available():
        # worth another try: a device plugin or driver that was restarted comes back
        raise RetryLoadError(
            f"the worker was promised {gpus} GPU(s) and torch finds none; check the node's driver, device plugin and "
            "the pool's runtimeClassName"
        )
    return torch.device("cuda:0")


def choose_dtype(asked: DType, device: torch.device, cuda: Cuda = torch.cuda) -> torch.dtype:
    """Return the format that was asked for; ``auto`` is bfloat16 where the hardware calculates in it, else float32."""
    if asked != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[asked]
    return torch.bfloat16 if has_bfloat16(device, cuda) else torch.float32


def has_bfloat16(device: torch.device, cuda: Cuda = torch.cuda) -> bool:
    """Return whether the device multiplies in bfloat16 by itself, which makes it faster than float32."""
    if device.type == "cuda":
        return cuda.get_device_capability(device)[0] >= _NATIVE_BFLOAT16
    try:
        return device.type == "cpu" and has_bfloat16_instructions(_CPU_INFO.read_text())
    except OSError:
        return False


def has_bfloat16_instructions(cpuinfo: str) -> bool:
    """Return whether every CPU of ``cpuinfo`` (the text of /proc/cpuinfo) has instructions for bfloat16."""
    found = [
        not _BFLOAT16_FLAGS[name].isdisjoint(flags.split())
        for name, flags in re.findall(r"^(flags|Features)[ \t]*:(.*)$", cpuinfo, re.MULTILINE)
    ]
    return bool(found) and all(found)


def calculate_with(threads: int) -> None:
    """Have what this thread calculates on the CPU done by so many threads; other threads keep theirs."""
    torch.get_num_threads()  # at first use a thread takes over the process's number, which must not come later
    torch.set_num_threads(threads)


def calculate_alone() -> None:
    """Have this thread calculate by itself; costs nothing when it does already."""
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)


def name_of(dtype: torch.dtype) -> str:
    """Return the format's name as users write it, such as ``float32``."""
    return str(dtype).removeprefix("torch.")


def reserved_mib(device: torch.device, cuda: Cuda = torch.cuda) -> int:
    """Return what torch has reserved on an accelerator, MiB; 0 on the CPU."""
    return cuda.memory_reserved(device) // _MIB if device.type == "cuda" else 0
