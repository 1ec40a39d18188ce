"""All layers of a plain decoder as one, in the place of those of transformers, which this module imports."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from modelpool_worker.generation.decoder_blocks import Past, Sizes, Weights, compiled
from modelpool_worker.generation.slot_cache import SlotView
from modelpool_worker.models.linear import padded_rows, rearranged_weight, rearranges
from modelpool_worker.models.memory import is_out_of_memory

#: Layers of transformers that calculate as `run_blocks` does, where nothing of their config says otherwise.
_PLAIN: Final = frozenset({"LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer"})
#: How far a token may be from what transformers makes of it, by its own length; rounding is far below.
_TOLERANCE: Final[Mapping[torch.dtype, float]] = {torch.float32: 1e-3, torch.bfloat16: 0.1}
#: Layers calculated at once where keys and values grow: so many of them are in memory twice for a moment.
_AT_ONCE: Final = 4
_TEXT: Final = (3, 1, 5, 7, 2, 4, 6, 1, 3)
_FIRST: Final = 5


def join_layers(model: Any) -> bool:
    """Join the layers of a model for text on the CPU; return False where the model is of no use any more.

    Any other than a plain decoder stays as it is. The layers' weights are rearranged, one layer after the other. A text
    is read before and after, and where the numbers differ the model has to be loaded again and left as it is.
    """
    with torch.inference_mode():
        try:
            decoder = model.get_decoder()
            if not _is_plain(decoder):
                return True
            expected = _read(decoder)
        except Exception:  # whatever it is, it is nothing that is known to be plain, and nothing was changed
            return True
        try:
            decoder.layers = nn.ModuleList([DecoderLayers(decoder.layers, decoder.config)])
            return _alike(_read(decoder), expected)
        except Exception as error:  # a size that is none of a plain decoder shows in many ways
            if is_out_of_memory(error):
                raise
            return False


class DecoderLayers(nn.Module):
    """Called as transformers calls a layer, once instead of once per layer. Takes ``layers`` apart as it reads them."""

    def __init__(self, layers: nn.ModuleList, config: Any) -> None:
        super().__init__()
        heads, groups = config.num_attention_heads, config.num_key_value_heads
        self._sizes = Sizes(heads, groups, float(config.rms_norm_eps))
        self._config = config
        self._blocks = compiled()
        self._weights: list[Weights] = []
        for number in range(len(layers)):
            self._weights.append(_weights(layers[number], heads, groups))
            layers[number] = nn.Identity()

    def forward(
        self,
        hidden_states: Tensor,
        *,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        **_kwargs: Any,
    ) -> Tensor:
        """Return ``hidden_states`` [texts, tokens, size] after all layers; ``past_key_values`` grows."""
        texts, tokens, _size = hidden_states.shape
        more = padded_rows(texts * tokens) - texts * tokens
        rest = (position_embeddings, attention_mask, more)
        if isinstance(past_key_values, SlotView):
            return self._blocks(hidden_states, self._weights, self._sizes, _with_room(past_key_values), *rest)[0]
        cache = DynamicCache(config=self._config) if past_key_values is None else past_key_values
        for first in range(0, len(self._weights), _AT_ONCE):
            weights, layers = self._weights[first : first + _AT_ONCE], cache.layers[first : first + _AT_ONCE]
            past = _behind(layers, hidden_states)
            hidden_states, keys, values = self._blocks(hidden_states, weights, self._sizes, past, *rest)
            for layer, key, value in zip(layers, keys, values, strict=True):
                if not layer.is_initialized:
                    layer.lazy_initialization(key, value)
                layer.keys, layer.values = key, value
        return hidden_states


def _behind(layers: Sequence[Any], like: Tensor) -> Past:
    if not layers[0].get_seq_length():
        nothing = [like.new_empty(0)] * len(layers)
        return Past(nothing, nothing, None, 0)
    return Past([layer.keys for layer in layers], [layer.values for layer in layers], None, 0)


def _with_room(view: SlotView) -> Past:
    slots = view.slots
    keys, values = [layer.keys for layer in slots.layers], [layer.values for layer in slots.layers]
    return Past(keys, values, slots.places, slots.columns)


def _is_plain(decoder: Any) -> bool:
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList) or not all(type(layer).__name__ in _PLAIN for layer in layers):
        return False
    config = decoder.config
    cache = DynamicCache(config=config)
    weights = [module.weight for layer in layers for module in layer.modules() if isinstance(module, nn.Linear)]
    return (
        config.hidden_act == "silu"
        and all(type(layer) is DynamicLayer for layer in cache.layers)
        and all(weight.device.type == "cpu" and rearranges(weight.dtype) for weight in weights)
    )


def _weights(layer: Any, heads: int, groups: int) -> Weights:
    attention, mlp = layer.self_attn, layer.mlp
    qkv, qkv_bias = _linear([attention.q_proj, attention.k_proj, attention.v_proj])
    output, output_bias = _linear([attention.o_proj])
    gate_up, gate_up_bias = _linear([mlp.gate_proj, mlp.up_proj])
    down, down_bias = _linear([mlp.down_proj])
    attention_norm, mlp_norm = _own(layer.input_layernorm.weight), _own(layer.post_attention_layernorm.weight)
    qk_norm = attention_norm.new_empty(0)
    if hasattr(attention, "q_norm"):
        qk_norm = torch.cat([attention.q_norm.weight.expand(heads, -1), attention.k_norm.weight.expand(groups, -1)])
    return Weights(
        *(attention_norm, qkv, qkv_bias, qk_norm, output, output_bias),
        *(mlp_norm, gate_up, gate_up_bias, down, down_bias),
    )


def _linear(parts: Sequence[Any]) -> tuple[Tensor, Tensor | None]:
    """Return the parts' weights, joined and rearranged, and their biases; copies of what the file has."""
    biases = [part.bias for part in parts if part.bias is not None]
    weight = rearranged_weight(torch.cat([part.weight for part in parts]))
    return weight, torch.cat(biases) if biases else None


def _own(weight: Tensor) -> Tensor:
    # the file stays mapped, and counts as memory, as long as a piece is in use
    return weight.detach().clone()


def _alike(found: Tensor, expected: Tensor) -> bool:
    """Return whether every token [1, tokens, size] is where it was; each by its own length."""
    # one for all would be that of the first token, which is often many times the others'
    distance = (found.float() - expected.float()).norm(dim=-1) / expected.float().norm(dim=-1)
    return bool((distance <= _TOLERANCE[expected.dtype]).all())


def _read(decoder: Any) -> Tensor:
    """Read a text in two portions, as long prompts are read; return what comes of each [1, tokens, size]."""
    past = DynamicCache(config=decoder.config)
    found: list[Tensor] = []
    for start, end in ((0, _FIRST), (_FIRST, len(_TEXT))):
        output = decoder(
            input_ids=torch.tensor([_TEXT[start:end]]),
            position_ids=torch.arange(start, end)[None],
            past_key_values=past,
            use_cache=True,
            return_dict=True,
        )
        found.append(output.last_hidden_state)
    return torch.cat(found, dim=1)
