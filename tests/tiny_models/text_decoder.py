"""A tiny text decoder of random weights that writes varied text: a whole folder with tokenizer and chat template."""

import argparse
from pathlib import Path
from typing import Any, Final, Literal

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from tiny_models.byte_level import byte_level

Kind = Literal["qwen3", "llama"]

_SEED: Final = 5
CONTEXT: Final = 512


def build(folder: Path, kind: Kind = "qwen3") -> None:
    """Save a model of this kind into ``folder``."""
    tokenizer = byte_level()
    torch.manual_seed(_SEED)
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "initializer_range": 0.2,  # narrower ones repeat one token for ever
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model: PreTrainedModel
    if kind == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(**sizes, head_dim=16))
    else:
        model = LlamaForCausalLM(LlamaConfig(**sizes))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.bos_token_id = None
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", choices=("qwen3", "llama"), default="qwen3")
    given = parser.parse_args()
    build(given.folder, given.kind)
