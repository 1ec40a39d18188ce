"""On which device a model runs, in which number format where its user says ``auto``, and what it holds there."""

import pytest
import torch

from modelpool_worker.errors import RetryLoadError
from modelpool_worker.models.devices import (
    choose_device,
    choose_dtype,
    has_bfloat16,
    has_bfloat16_instructions,
    reserved_mib,
)
from unit.modelpool_worker.gpus import GPU, Gpus

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("cpuinfo", "has"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_bf16 fsrm\n", True),
        ("flags\t\t: fpu avx2 amx_bf16 amx_tile\nbugs\t\t: spectre\n", True),
        ("flags\t\t: fpu avx2 avx512f avx512_vnni\nvmx flags\t: avx512_bf16\n", False),
        ("flags\t\t: avx512_bf16\n\nprocessor\t: 1\nflags\t\t: avx2\n", False),
        ("Features\t: fp asimd i8mm bf16 dgh\n", True),
        ("Features\t: fp asimd asimddp\n", False),
        ("flags\t\t: bf16\n", False),
        ("model name\t: avx512_bf16\n", False),
        ("", False),
    ],
    ids=[
        "avx512",
        "amx",
        "avx512 without",
        "one without",
        "arm",
        "arm without",
        "arm's name on x86",
        "a name",
        "empty",
    ],
)
def test_bfloat16_is_for_cpus_that_calculate_in_it(cpuinfo, has):
    assert has_bfloat16_instructions(cpuinfo) is has


def test_auto_is_bfloat16_where_the_device_has_it_and_what_is_asked_for_is_taken():
    assert choose_dtype("auto", CPU) is (torch.bfloat16 if has_bfloat16(CPU) else torch.float32)
    assert [choose_dtype(asked, CPU) for asked in ("float32", "bfloat16", "float16")] == [
        torch.float32,
        torch.bfloat16,
        torch.float16,
    ]


def test_a_device_of_another_kind_has_none():
    assert not has_bfloat16(torch.device("meta"))


@pytest.mark.parametrize(
    ("promised", "device"), [(0, CPU), (1, GPU), (8, GPU)], ids=["none promised", "one", "several: the first"]
)
def test_a_model_runs_on_a_gpu_only_where_one_was_promised(promised, device):
    assert choose_device(promised, Gpus()) == device


def test_a_promised_gpu_that_is_not_there_is_said_and_worth_another_try():
    with pytest.raises(RetryLoadError, match=r"was promised 2 GPU\(s\) and torch finds none; check the node's driver"):
        choose_device(2, Gpus(available=False))


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((10, 0), torch.bfloat16)],
    ids=["Turing", "Ampere", "Blackwell"],
)
def test_auto_is_bfloat16_on_gpus_that_calculate_in_it_by_themselves(capability, dtype):
    assert choose_dtype("auto", GPU, Gpus(capability=capability)) is dtype
    assert choose_dtype("float16", GPU, Gpus(capability=capability)) is torch.float16


def test_what_is_held_on_a_gpu_is_counted_in_whole_mib_and_nothing_on_a_cpu():
    cuda = Gpus(held={GPU: 600 * 2**20 + 2**19})
    assert reserved_mib(GPU, cuda) == 600
    assert reserved_mib(CPU, cuda) == 0
