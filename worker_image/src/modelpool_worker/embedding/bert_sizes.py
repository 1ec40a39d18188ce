"""Whether a model folder holds a plain BERT encoder, and how large it is. Pure reading: no model library here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from modelpool_worker.models.model_files import WEIGHTS, ModelFiles
from modelpool_worker.models.shapes import Shape

#: Beside the encoder itself: heads that training leaves behind, and numbers that follow from the sizes.
_UNUSED: Final = ("pooler.", "cls.", "embeddings.position_ids")
_NUMBERS: Final = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("intermediate_size", "max_position_embeddings", "type_vocab_size"),
)
#: What config.json may say of these, or leave out, for the forward to be the plain one.
_PLAIN: Final[Mapping[str, tuple[Any, ...]]] = {
    "hidden_act": (None, "gelu"),
    "position_embedding_type": (None, "absolute"),
    "is_decoder": (None, False),
    "is_encoder_decoder": (None, False),
    "add_cross_attention": (None, False),
    "pruned_heads": (None, {}),
    "embedding_size": (None,),
    "vision_config": (None,),
}


@dataclass(frozen=True, slots=True)
class BertSizes:
    """The sizes of a plain BERT encoder; ``prefix`` stands before the names of its tensors."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    intermediate: int
    positions: int
    types: int
    epsilon: float
    prefix: str = ""


def read_sizes(files: ModelFiles) -> BertSizes | None:
    """Return the sizes where config and weights are those of a plain BERT encoder, None for anything else.

    Plain: absolute positions, exact GELU, every tensor under its usual name in its expected shape, all in one file.
    """
    config = files.config
    if config.get("model_type") != "bert" or any(config.get(key) not in values for key, values in _PLAIN.items()):
        return None
    numbers = [config.get(name) for name in _NUMBERS]
    epsilon = config.get("layer_norm_eps", 1e-12)
    if not all(type(number) is int and number > 0 for number in numbers) or type(epsilon) is not float:
        return None
    prefix = "bert." if any(name.startswith("bert.") for name in files.shapes) else ""
    vocabulary, hidden, layers, heads, intermediate, positions, types = (int(config[name]) for name in _NUMBERS)
    sizes = BertSizes(vocabulary, hidden, layers, heads, intermediate, positions, types, epsilon, prefix)
    fits = sizes.hidden % sizes.heads == 0 and 0 < epsilon < 1 and (files.folder / WEIGHTS).exists()
    return sizes if fits and _are_those(files.shapes, sizes) else None


def wanted_shapes(sizes: BertSizes) -> dict[str, Shape]:
    """Return the shape of every tensor of the encoder by its name, without the prefix."""
    hidden, wide = sizes.hidden, sizes.intermediate
    shapes: dict[str, Shape] = {
        "embeddings.word_embeddings.weight": (sizes.vocabulary, hidden),
        "embeddings.position_embeddings.weight": (sizes.positions, hidden),
        "embeddings.token_type_embeddings.weight": (sizes.types, hidden),
        **_norm("embeddings.LayerNorm", hidden),
    }
    for layer in range(sizes.layers):
        place = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            shapes |= _linear(f"{place}.attention.self.{part}", hidden, hidden)
        shapes |= _linear(f"{place}.attention.output.dense", hidden, hidden)
        shapes |= _norm(f"{place}.attention.output.LayerNorm", hidden)
        shapes |= _linear(f"{place}.intermediate.dense", wide, hidden)
        shapes |= _linear(f"{place}.output.dense", hidden, wide)
        shapes |= _norm(f"{place}.output.LayerNorm", hidden)
    return shapes


def _are_those(held: Mapping[str, Shape], sizes: BertSizes) -> bool:
    left = {name.removeprefix(sizes.prefix): shape for name, shape in held.items()}
    if sizes.layers > len(left):
        return False
    for name, shape in wanted_shapes(sizes).items():
        if left.pop(name, None) != shape:
            return False
    return all(name.startswith(_UNUSED) for name in left)


def _linear(name: str, out: int, into: int) -> dict[str, Shape]:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def _norm(name: str, size: int) -> dict[str, Shape]:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}
