"""Tiny text decoders without a plain attention cache: a sliding window, layers that alternate, a recurrence."""

import argparse
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    Lfm2Config,
    Lfm2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
)

from tiny_models.byte_level import byte_level

Kind = Literal["mistral", "gemma3", "lfm2", "mamba"]

_SEED = 12
#: Much shorter than the tests' texts, so that what slides out of it matters.
WINDOW = 12
_SHARED: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.2,  # wide enough that greedy text varies
    "tie_word_embeddings": False,
    "bos_token_id": None,
}


def build(folder: Path, kind: Kind = "mistral") -> None:
    """Save a model of this kind, with its tokenizer, into ``folder``."""
    tokenizer = byte_level()
    torch.manual_seed(_SEED)
    sizes = _SHARED | {
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model = _model(kind, sizes)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.bos_token_id = None
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def _model(kind: Kind, sizes: dict[str, Any]) -> PreTrainedModel:
    if kind == "mistral":
        return MistralForCausalLM(MistralConfig(**sizes, num_hidden_layers=2, sliding_window=WINDOW))
    if kind == "gemma3":
        layers = ["sliding_attention", "full_attention"]
        return Gemma3ForCausalLM(
            Gemma3TextConfig(**sizes, num_hidden_layers=2, head_dim=16, sliding_window=WINDOW, layer_types=layers)
        )
    if kind == "lfm2":
        return Lfm2ForCausalLM(Lfm2Config(**sizes, num_hidden_layers=2, layer_types=["conv", "full_attention"]))
    return MambaForCausalLM(MambaConfig(**sizes, num_hidden_layers=2, state_size=8, use_mambapy=False))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", choices=("mistral", "gemma3", "lfm2", "mamba"), default="mistral")
    given = parser.parse_args()
    build(given.folder, given.kind)
