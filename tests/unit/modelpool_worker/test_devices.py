"""In which number format a model runs where its user says ``auto``."""

import pytest
import torch

from modelpool_worker.models.devices import choose_dtype, has_bfloat16, has_bfloat16_instructions

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
