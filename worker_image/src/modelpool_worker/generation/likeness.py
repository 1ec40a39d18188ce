"""Whether two ways of calculating the same come to the same."""

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

#: How far apart they may be, by the largest number; rounding is far below.
_TOLERANCE: Final[Mapping[torch.dtype, float]] = {torch.float32: 1e-2, torch.float16: 5e-2, torch.bfloat16: 0.2}


def alike(found: Tensor, expected: Tensor, dtype: torch.dtype | None = None) -> bool:
    """Return whether the numbers are the same but for rounding in ``dtype``, else in that of ``expected``."""
    difference = (found.float() - expected.float()).abs().amax()
    return bool((difference <= _TOLERANCE[dtype or expected.dtype] * expected.float().abs().amax()).item())
