"""Linear layers on a CPU, with their weights in the order in memory that its matrix kernels read fastest."""

import platform
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

Layer = Callable[[Tensor], Tensor]

#: oneDNN, which torch brings along, keeps what it compiles for a number of rows: 0.7 MB each, a millisecond to make. So
#: that there are few of them, numbers are rounded up to one of 16 in each doubling.
_STEPS_BITS: Final = 4


def linear(weight: Tensor, bias: Tensor | None, *, gelu: bool = False) -> Layer:
    """Return ``x [rows, in] → x · weightᵀ + bias [rows, out]``, with an exact GELU after it where ``gelu``.

    Its weights are rearranged where that can be done.
    """
    rearranged = rearranges(weight.dtype)
    kept = rearranged_weight(weight) if rearranged else weight

    def layer(rows: Tensor) -> Tensor:
        return linear_rows(rows, kept, bias, gelu, rearranged)

    return layer


def linear_rows(rows: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool, rearranged: bool) -> Tensor:
    """What `linear` returns calculates this; ``weight`` is of `rearranged_weight` where ``rearranged``.

    Written so that TorchScript can read it.
    """
    if rearranged:
        pointwise = "gelu" if gelu else "none"
        result: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, pointwise, [], "none" if gelu else "")
        return result
    result = functional.linear(rows, weight, bias)
    return functional.gelu(result) if gelu else result


def rearranged_weight(weight: Tensor) -> Tensor:
    """Return a copy in the kernels' order, which is no number for anybody else; where `rearranges` says so.

    It saves a third of the time of a single text in bfloat16 and a tenth of a batch's. Rearranging takes a moment: not
    worth it for weights that are used once.
    """
    copy: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return copy


def padded_rows(rows: int) -> int:
    """Return how many rows to calculate so that lengths that were never seen before stay rare."""
    step = 1 << max(0, (rows - 1).bit_length() - 1 - _STEPS_BITS)
    return -(-rows // step) * step


def rearranges(dtype: torch.dtype) -> bool:
    """Return whether torch can rearrange weights of this format here.

    These are the operations that its own compiler emits for CPUs, which other builds may lack.
    """
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if platform.machine() != "x86_64" or not available:
        return False
    names = ("_reorder_linear_weight", "_linear_pointwise")
    if not all(hasattr(torch.ops.mkldnn, name) for name in names):
        return False
    if dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype is torch.float32
