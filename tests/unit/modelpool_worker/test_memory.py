"""Free memory by what the kernel's files say."""

import subprocess
import sys

import pytest
import torch

from modelpool_worker.models.memory import free_bytes, free_of, is_out_of_memory
from unit.modelpool_worker.gpus import GPU, Gpus

MACHINE = "MemTotal: 8000000 kB\nMemAvailable:    1000 kB\n"
GIB = 2**30


@pytest.mark.parametrize(
    ("machine", "maximum", "current", "stat", "expected"),
    [
        (MACHINE, "", "", "", 1_024_000),
        (MACHINE, "max\n", "5\n", "", 1_024_000),
        (MACHINE, f"{GIB}\n", "5\n", "", 1_024_000),
        (MACHINE, "500000\n", "100000\n", "anon 7\n", 400_000),
        (MACHINE, "500000\n", "100000\n", "anon 7\ninactive_file 60000\n", 460_000),
        (MACHINE, "500000\n", "600000\n", "", 0),
    ],
    ids=["no cgroup", "unlimited", "roomy", "bounded", "cached files can go", "beyond"],
)
def test_the_tighter_bound_counts(machine, maximum, current, stat, expected):
    assert free_of(machine, maximum, current, stat) == expected


def test_this_machine_has_some():
    assert free_bytes(torch.device("cpu")) > 0


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        pytest.param(MemoryError(), True, id="python"),
        pytest.param(torch.OutOfMemoryError("CUDA out of memory"), True, id="torch, GPU"),
        pytest.param(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True, id="torch, CPU"),
        pytest.param(RuntimeError("shapes do not fit"), False, id="torch, anything else"),
        pytest.param(ValueError("can't allocate memory"), False, id="another kind"),
    ],
)
def test_no_memory_is_told_from_anything_else(error, is_it):
    assert is_out_of_memory(error) is is_it


def test_to_tell_it_torch_is_not_imported():
    """It would take seconds, on the event loop, in a worker that works without it."""
    lines = [
        "import sys",
        "from modelpool_worker.models.memory import is_out_of_memory",
        "assert is_out_of_memory(MemoryError()) and not is_out_of_memory(ValueError())",
        "assert 'torch' not in sys.modules",
    ]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, timeout=60)


def test_what_is_free_on_a_gpu_is_what_the_driver_says_and_the_machine_s_memory_does_not_matter():
    assert free_bytes(GPU, Gpus(free={GPU: 3 * GIB})) == 3 * GIB
