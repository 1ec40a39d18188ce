"""A prompt made ready for the model. Imports torch for its type only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from modelpool_worker.generation.request import Sampling

if TYPE_CHECKING:
    import torch

_NOTHING: "Mapping[str, torch.Tensor]" = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class GenerationPrompt:
    """Token ids and what shall be made of them.

    ``extra`` are further inputs of the model's first forward pass, such as pixel values, by their names; a prompt that
    has some is read in one piece. Prompts that share the very same ``ids`` and ``extra`` and join together are read
    once: the ``choice`` among them is added to the seed.
    """

    ids: tuple[int, ...]
    sampling: Sampling
    max_new_tokens: int
    choice: int = 0
    extra: "Mapping[str, torch.Tensor]" = field(default_factory=lambda: _NOTHING)
