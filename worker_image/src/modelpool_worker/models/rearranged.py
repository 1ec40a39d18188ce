"""Loaded models whose linear layers keep their weights as the CPU's matrix kernels read them. Imports torch."""

from collections import Counter
from collections.abc import Callable
from itertools import chain
from typing import Any, Final

import torch
from torch import Tensor, nn

from modelpool_worker.models.linear import linear, padded_rows, rearranges
from modelpool_worker.models.memory import free_bytes

#: A layer that shares its weights, as the last one often does with the table of words, is given a copy of its own where
#: that takes at most this share of the free memory.
_COPY_SHARE: Final = 0.125


def rearrange(model: Any, calculate: Callable[[Any], Tensor]) -> bool:
    """Rearrange the weights of all plain linear layers on the CPU; return False where the model is of no use any more.

    A layer's ``weight`` is then no number for whoever looks at it, and takes no memory: nothing can be done with the
    model but calculating. ``calculate(model)`` tries it out; where that fails or gives what is not finite, the model's
    own code uses some layer's weight, and it has to be loaded again and left as it is.
    """
    uses = Counter(id(parameter) for _name, parameter in model.named_parameters(remove_duplicate=False))
    layers = [module for module in model.modules() if _is_plain(module)]
    for layer in layers:
        weight = layer.weight.detach()
        shared = uses[id(layer.weight)] > 1
        if shared and weight.nbytes > free_bytes(weight.device) * _COPY_SHARE:
            continue
        layer.forward = _padded(weight, layer.bias)
        if not shared:
            missing = torch.full((), torch.nan, dtype=weight.dtype).expand(weight.shape)
            layer.weight = nn.Parameter(missing, requires_grad=False)
    if not layers:
        return True
    _let_go_of_file(model)
    return _works(model, calculate)


def _is_plain(module: nn.Module) -> bool:
    # what derives from it calculates in its own way; so does one whose forward somebody has set
    return (
        type(module) is nn.Linear
        and "forward" not in vars(module)
        and module.weight.device.type == "cpu"
        and rearranges(module.weight.dtype)
    )


def _padded(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """Return a layer for inputs of any shape [..., in]."""
    # a bias that is part of the file would keep all of it mapped
    layer = linear(weight, None if bias is None else bias.detach().clone())
    out = len(weight)

    def forward(given: Tensor) -> Tensor:
        rows = given.reshape(-1, given.shape[-1])
        count = len(rows)
        if count == 0:
            return given.new_zeros((*given.shape[:-1], out))
        if more := padded_rows(count) - count:
            rows = nn.functional.pad(rows, (0, 0, 0, more))
        return layer(rows)[:count].view(*given.shape[:-1], out)

    return forward


def _let_go_of_file(model: nn.Module) -> None:
    """Copy what is left of the weights: the file stays mapped, and counts as memory, as long as a piece is in use."""
    for tensor in chain(model.parameters(), model.buffers()):
        if 0 not in tensor.stride():
            tensor.data = tensor.data.clone()


def _works(model: Any, calculate: Callable[[Any], Tensor]) -> bool:
    try:
        with torch.inference_mode():
            return bool(calculate(model).isfinite().all())
    except Exception:  # models say in many ways that a weight is not what they want
        return False
