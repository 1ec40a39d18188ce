"""Tiny vision-language models of random weights, whole folders: processor, tokenizer with chat template, weights."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

from tiny_models.byte_level import byte_level

Kind = Literal["idefics3", "smolvlm", "llava", "qwen2_5_vl"]

_SEED = 7
#: Wide enough that greedy text varies and that it depends on the image.
_WIDTH = 0.2
_SIDE = 32
_PATCH = 8
_TILES: dict[str, Any] = {
    "do_image_splitting": False,
    "size": {"longest_edge": _SIDE},
    "max_image_size": {"longest_edge": _SIDE},
}
_TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": _WIDTH,
    "tie_word_embeddings": False,
    "bos_token_id": None,
}


def build(folder: Path, kind: Kind = "idefics3") -> None:
    """Save a model of this kind into ``folder``."""
    torch.manual_seed(_SEED)
    model, processor = _MAKERS[kind]()
    tokenizer = processor.tokenizer
    processor.chat_template = tokenizer.chat_template
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.bos_token_id = None
    model.save_pretrained(str(folder))
    processor.save_pretrained(str(folder))


def _idefics3() -> tuple[Any, Any]:
    tokenizer = _tiled_tokenizer()
    images = Idefics3ImageProcessor(**_TILES)
    model = Idefics3ForConditionalGeneration(Idefics3Config(**_tiled_config(tokenizer)))
    return model, Idefics3Processor(images, tokenizer, image_seq_len=4)


def _smolvlm() -> tuple[Any, Any]:
    tokenizer = _tiled_tokenizer()
    images, videos = SmolVLMImageProcessor(**_TILES), SmolVLMVideoProcessor(**_TILES)
    model = SmolVLMForConditionalGeneration(SmolVLMConfig(**_tiled_config(tokenizer)))
    return model, SmolVLMProcessor(images, tokenizer, videos, image_seq_len=4)


def _tiled_tokenizer() -> PreTrainedTokenizerFast:
    marks = ("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
    tiles = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))
    return byte_level(marks + tiles, image="<image>")


def _tiled_config(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vision_config": {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": _SIDE,
            "patch_size": _PATCH,
            "initializer_range": _WIDTH,
        },
        "text_config": {"model_type": "llama", **_text(tokenizer)},
        "image_token_id": tokenizer.convert_tokens_to_ids("<image>"),
        "scale_factor": 2,
        "tie_word_embeddings": False,
    }


def _llava() -> tuple[Any, Any]:
    tokenizer = byte_level(("<image>",), image="<image>")
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=_SIDE,
        patch_size=_PATCH,
        initializer_range=_WIDTH,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=LlamaConfig(**_text(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(_SIDE // _PATCH) ** 2,
        vision_feature_layer=-1,
        tie_word_embeddings=False,
    )
    config.initializer_range = _WIDTH
    processor = LlavaProcessor(
        CLIPImageProcessor(
            size={"shortest_edge": _SIDE}, crop_size={"height": _SIDE, "width": _SIDE}, do_convert_rgb=True
        ),
        tokenizer,
        patch_size=_PATCH,
        num_additional_image_tokens=1,
        vision_feature_select_strategy="default",
    )
    return LlavaForConditionalGeneration(config), processor


def _qwen() -> tuple[Any, Any]:
    marks = ("<|vision_start|>", "<|image_pad|>", "<|video_pad|>", "<|vision_end|>")
    tokenizer = byte_level(marks, image="<|vision_start|><|image_pad|><|vision_end|>")
    ids = dict(zip(marks, tokenizer.convert_tokens_to_ids(list(marks)), strict=True))
    config = Qwen2_5_VLConfig(
        text_config={
            **_text(tokenizer),
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]},
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "patch_size": _PATCH,
            "out_hidden_size": 64,
            "window_size": 32,
            "fullatt_block_indexes": [1],
            "initializer_range": _WIDTH,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
    )
    pixels = {"shortest_edge": (2 * _PATCH) ** 2, "longest_edge": _SIDE**2 * 4}
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(patch_size=_PATCH, merge_size=2, size=pixels),
        tokenizer,
        Qwen2VLVideoProcessor(patch_size=_PATCH, merge_size=2, size=pixels),
    )
    return Qwen2_5_VLForConditionalGeneration(config), processor


def _text(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return _TEXT | {
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


_MAKERS: dict[Kind, Callable[[], tuple[Any, Any]]] = {
    "idefics3": _idefics3,
    "smolvlm": _smolvlm,
    "llava": _llava,
    "qwen2_5_vl": _qwen,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", choices=tuple(_MAKERS), default="idefics3")
    given = parser.parse_args()
    build(given.folder, given.kind)
