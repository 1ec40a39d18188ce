"""Whether vectors keep their direction in bfloat16, which ``auto`` takes for embeddings only where they do."""

from math import prod
from typing import Final

import structlog
import torch
from torch import Tensor
from torch.nn import functional

from modelpool_worker.capabilities.base import DType
from modelpool_worker.models.devices import choose_dtype
from modelpool_worker.models.memory import free_bytes
from modelpool_worker.models.model_files import ModelFiles

_log = structlog.get_logger(__name__)

#: What a bfloat16 vector's cosine to the same input's float32 vector must be for ``auto`` to mean bfloat16.
LEAST_COSINE: Final = 0.999
#: Weights that were saved in bfloat16 are read in float32 for the comparison up to this size.
_COMPARED_BYTES: Final = 2 * 1024**3
#: Of the free memory: the inputs that are compared need some as well.
_MOST_OF_FREE: Final = 0.8


def choose_compared(asked: DType, files: ModelFiles, device: torch.device) -> tuple[torch.dtype, bool]:
    """Return the format to run in, and whether that is to be compared with float32 first."""
    dtype = choose_dtype(asked, device)
    if asked != "auto" or dtype is torch.float32:
        return dtype, False
    # weights come through the machine's memory, wherever they go
    free = min(free_bytes(torch.device("cpu")), free_bytes(device))
    saved = str(files.config.get("dtype", files.config.get("torch_dtype", "float32")))
    return dtype, is_comparable(saved, sum(prod(shape) for shape in files.shapes.values()), free)


def is_comparable(saved: str, numbers: int, free: int) -> bool:
    """Return whether so many weights are read in float32 for a comparison, by their saved format and free bytes.

    Large ones that were saved in bfloat16 are not: nothing is rounded that their makers did not round, and reading them
    twice as large takes its time. Those saved in float16 are: bfloat16 keeps three bits less of each.
    """
    wanted = 4 * numbers
    if saved == "bfloat16" and wanted > _COMPARED_BYTES:
        return False
    if wanted > free * _MOST_OF_FREE:
        _log.warning("bfloat16 not compared with float32: no room to load both", wanted_bytes=wanted, free_bytes=free)
        return False
    return True


def agree(exact: Tensor, fast: Tensor) -> bool:
    """Whether every vector [inputs, size] keeps its direction; False where one is not finite."""
    return bool((functional.cosine_similarity(exact, fast) >= LEAST_COSINE).all())
