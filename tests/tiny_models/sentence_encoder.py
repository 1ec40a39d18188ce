"""Text encoders with random weights and a WordPiece vocabulary made by rule."""

import string
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertForMaskedLM, BertModel, BertTokenizer, MPNetConfig, MPNetModel

_WORDS = "the a cat dog food man eating runs under over bridge river warm up somewhat longer text"


def build(folder: Path) -> None:
    """Build a plain BERT encoder of 0.1 M parameters with a tokenizer."""
    bert(folder)


def bert(folder: Path, *, head: bool = False, **changes: Any) -> None:
    """Build a BERT encoder; with a ``head`` its tensors are named ``bert.…``. ``changes`` go into its config."""
    tokenizer = word_piece()
    sizes = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 80}
    # weights wide enough that two texts get two directions
    config = BertConfig(
        **{
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 40,
            "initializer_range": 0.2,
            "pad_token_id": tokenizer.pad_token_id,
            **sizes,
            **changes,
        }
    )
    torch.manual_seed(4)
    (BertForMaskedLM if head else BertModel)(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def mpnet(folder: Path) -> None:
    """Build an MPNet encoder, which has relative positions besides."""
    tokenizer = word_piece()
    torch.manual_seed(4)
    config = MPNetConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=80,
        max_position_embeddings=40,
        initializer_range=0.2,
        pad_token_id=tokenizer.pad_token_id,
    )
    MPNetModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def word_piece() -> BertTokenizer:
    """Return a lower-casing tokenizer that knows some words, and every ASCII letter, digit and sign."""
    characters = string.ascii_lowercase + string.digits + string.punctuation
    pieces = [*characters, *(f"##{character}" for character in characters), *dict.fromkeys(_WORDS.split())]
    tokens = dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces])
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return BertTokenizer(vocab=vocabulary, model_max_length=32)
