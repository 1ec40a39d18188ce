"""Tiny image encoders of random weights, whole folders: CLIP, SigLIP and SigLIP 2 with a text side, DINOv2 without."""

import argparse
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers.processors import TemplateProcessing
from transformers import (
    BitImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    PreTrainedTokenizerFast,
    Siglip2Config,
    Siglip2ImageProcessor,
    Siglip2Model,
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

from tiny_models.byte_level import byte_level

Kind = Literal["clip", "siglip", "siglip2", "dinov2"]

_SEED = 5
_SIDE = 32
_PATCH = 8
_TOKENS = 16
_LAYERS: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": 0.2,  # wide enough that two images are far apart
}
_CROP: dict[str, Any] = {"size": {"shortest_edge": _SIDE}, "crop_size": {"height": _SIDE, "width": _SIDE}}


def build(folder: Path, kind: Kind = "clip") -> None:
    """Save a model of this kind, with its image processor and its tokenizer, into ``folder``."""
    torch.manual_seed(_SEED)
    tokenizer = _letters() if kind == "siglip2" else _tokenizer()
    model, processor = _MAKERS[kind](tokenizer)
    model.save_pretrained(str(folder))
    processor.save_pretrained(str(folder))
    if kind != "dinov2":
        tokenizer.save_pretrained(str(folder))


def _clip(tokenizer: PreTrainedTokenizerFast) -> tuple[Any, Any]:
    config = CLIPConfig(
        text_config=_text(tokenizer),
        vision_config={**_LAYERS, "image_size": _SIDE, "patch_size": _PATCH},
        projection_dim=24,
    )
    return CLIPModel(config), CLIPImageProcessor(**_CROP)


def _siglip(tokenizer: PreTrainedTokenizerFast) -> tuple[Any, Any]:
    config = SiglipConfig(
        text_config=_text(tokenizer), vision_config={**_LAYERS, "image_size": _SIDE, "patch_size": _PATCH}
    )
    return SiglipModel(config), SiglipImageProcessor(size={"height": _SIDE, "width": _SIDE})


def _siglip2(tokenizer: PreTrainedTokenizerFast) -> tuple[Any, Any]:
    patches = (_SIDE // _PATCH) ** 2
    config = Siglip2Config(
        text_config=_text(tokenizer), vision_config={**_LAYERS, "num_patches": patches, "patch_size": _PATCH}
    )
    return Siglip2Model(config), Siglip2ImageProcessor(patch_size=_PATCH, max_num_patches=patches)


def _dinov2(_tokenizer: PreTrainedTokenizerFast) -> tuple[Any, Any]:
    sizes = {name: value for name, value in _LAYERS.items() if name != "intermediate_size"}
    config = Dinov2Config(**sizes, mlp_ratio=2, image_size=_SIDE, patch_size=_PATCH)
    return Dinov2Model(config), BitImageProcessor(**_CROP)


_MAKERS: dict[Kind, Callable[[PreTrainedTokenizerFast], tuple[Any, Any]]] = {
    "clip": _clip,
    "siglip": _siglip,
    "siglip2": _siglip2,
    "dinov2": _dinov2,
}


def _text(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        **_LAYERS,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": _TOKENS,
        "bos_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _tokenizer() -> PreTrainedTokenizerFast:
    """A text's vector is taken at its end token, so every text has one."""
    tokenizer = byte_level()
    tokenizer.padding_side = "right"
    return _ended(tokenizer)


def _letters() -> PreTrainedTokenizerFast:
    """The class that a SigLIP 2 folder's tokenizer is loaded as: a token for each letter, others unknown."""
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *string.ascii_lowercase, *string.digits]
    vocabulary = {word: number for number, word in enumerate(words)}
    return _ended(Siglip2Tokenizer(vocab=vocabulary, padding_side="right"))


def _ended(tokenizer: Any) -> PreTrainedTokenizerFast:
    end = (tokenizer.eos_token, tokenizer.eos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"$A {end[0]}", special_tokens=[end])
    tokenizer.model_max_length = _TOKENS
    return tokenizer


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", choices=tuple(_MAKERS), default="clip")
    given = parser.parse_args()
    build(given.folder, given.kind)
