"""Loading what writes text, in the fastest form that it works in. Imports torch and transformers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from modelpool_worker.generation.decoder_layers import join_layers
from modelpool_worker.models.model_files import ModelFiles
from modelpool_worker.models.pretrained import load_changed
from modelpool_worker.models.rearranged import rearrange


def load_decoder(
    auto: Any,
    config: Any,
    files: ModelFiles,
    dtype: torch.dtype,
    device: torch.device,
    calculate: Callable[[Any], Tensor],
) -> Any:
    """Load with joined layers, else with rearranged weights, else as it is saved; ``calculate(model)`` tries it out."""

    def join(model: Any) -> bool:
        return join_layers(model) and change(model)

    def change(model: Any) -> bool:
        return rearrange(model, calculate)

    return load_changed(auto, config, files, dtype, device, (join, change))
