"""Which way of stepping suits a model, found by trying it. Imports torch and transformers."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from modelpool_worker.generation.rows import Rows
from modelpool_worker.generation.slot_cache import Layer, SlotCache
from modelpool_worker.generation.solo import Solo
from modelpool_worker.generation.vocabulary import Vocabulary
from modelpool_worker.models.memory import free_bytes

#: What of the free memory the cache may take: it is copied when it grows, and a step needs room of its own.
_SHARE: Final = 0.4
#: Longest prompt and answer together, whatever the model says.
_MOST_TOKENS: Final = 131_072
_UNSAID_TOKENS: Final = 2048
#: Rotary embeddings that depend on the longest row there is: a row's numbers would depend on its neighbours'.
_ROPE_OF_LONGEST: Final = ("dynamic", "longrope")
#: How far a step may be from reading the whole text again, by the largest number; rounding is far below.
_TOLERANCE: Final[Mapping[torch.dtype, float]] = {torch.float32: 1e-2, torch.float16: 5e-2, torch.bfloat16: 0.2}
_TEXTS: Final = ((3, 11, 5, 7, 2, 13), (17, 4, 6))


class Engine(NamedTuple):
    """``context_tokens`` bounds a row, ``max_items`` and ``max_tokens`` all of them as ``Loaded`` says."""

    rows: Rows | Solo
    context_tokens: int
    max_items: int | None
    max_tokens: int | None


def make_engine(model: Any, vocabulary: Vocabulary, ends: Collection[int], *, alone: bool = False) -> Engine:
    """Make what steps a loaded model: all rows together where its cache allows that, else (or if ``alone``) one by one.

    ``ends`` are the ids of the tokens that end a text.
    """
    together = not alone and steps_together(model)
    context = find_context(model.config)
    cells = find_cells(model)
    if cells is not None:
        context = min(context, cells)
    if together:
        return Engine(Rows(model, vocabulary, ends), context, None, cells)
    return Engine(Solo(model, vocabulary, ends), context, 1, cells)


def steps_together(model: Any) -> bool:
    """Return whether rows of different lengths may step together: the cache is plain attention, and the result right.

    Two rows take a step together, and the result is compared with reading each text anew.
    """
    rope = [value for key, value in _items(model.config.to_dict()) if key in ("rope_type", "type")]
    if any(kind in _ROPE_OF_LONGEST for kind in rope if isinstance(kind, str)):
        return False
    try:
        with torch.inference_mode():
            expected = torch.cat([_read(model, text)[0] for text in _TEXTS])
            found = _step(model)
    except Exception:  # models refuse in many ways what they are not made for
        return False
    if found is None:
        return False
    scale = expected.abs().amax()
    return bool(((found - expected).abs().amax() <= _TOLERANCE[model.dtype] * scale).item())


def find_cells(model: Any) -> int | None:
    """Return how many tokens the cache can hold in the memory that is free now; None where nothing grows by tokens."""
    text = _TEXTS[0]
    with torch.inference_mode():
        try:
            _logits, cache = _read(model, text)
        except Exception:
            return None
    layers = [layer for layer in cache.layers if isinstance(layer, DynamicLayer)]
    held: list[Tensor] = [each for layer in layers for each in (layer.keys, layer.values) if each is not None]
    token_bytes = sum(each.numel() * each.element_size() for each in held) // len(text)
    return int(free_bytes(model.device) * _SHARE) // token_bytes if token_bytes else None


def find_context(config: Any) -> int:
    """Return how long prompt and answer may be together, tokens."""
    text_config = config.get_text_config(decoder=True)
    said = getattr(text_config, "max_position_embeddings", None)
    return min(said, _MOST_TOKENS) if isinstance(said, int) and said > 0 else _UNSAID_TOKENS


def find_ends(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return the ids of the tokens that end a text, by the model's generation config and by its tokenizer."""
    said = [model.generation_config.eos_token_id, tokenizer.eos_token_id]
    lists = [each if isinstance(each, list) else [each] for each in said]
    return frozenset(number for each in lists for number in each if isinstance(number, int))


def _step(model: Any) -> Tensor | None:
    """Read all but the last token of each text, step them together; return the logits, None for another cache."""
    slots = SlotCache(model.device)
    for text in _TEXTS:
        _logits, cache = _read(model, text[:-1])
        plain = all(type(layer) is DynamicLayer and layer.get_seq_length() == len(text) - 1 for layer in cache.layers)
        if not plain:
            return None
        slots.add([Layer(layer.keys, layer.values) for layer in cache.layers], len(text))
    positions, mask = slots.begin_step()
    tokens = torch.tensor([[text[-1]] for text in _TEXTS], device=model.device)
    output = model(
        input_ids=tokens,
        position_ids=positions,
        attention_mask=mask,
        past_key_values=slots.view,
        use_cache=True,
        logits_to_keep=1,
        return_dict=True,
    )
    logits: Tensor = output.logits[:, -1].float()
    return logits


def _read(model: Any, text: tuple[int, ...]) -> tuple[Tensor, Any]:
    cache = DynamicCache(config=model.config)
    output = model(
        input_ids=torch.tensor([text], device=model.device),
        position_ids=torch.arange(len(text), device=model.device)[None],
        past_key_values=cache,
        use_cache=True,
        return_dict=True,
    )
    return output.logits[:, -1].float(), cache


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key), inner
            yield from _items(inner)
