"""Makes the text model of the benchmark: a Qwen3 of 87.5 million random parameters with a byte-level tokenizer.

Run by the worker's own environment: ``python decoder.py VOCABULARY FOLDER``; the vocabulary is a BERT's ``vocab.txt``.
Made by rule from fixed seeds: the same each time.
"""

import sys
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

VOCABULARY = 32_000
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    """Every byte, then words and the beginnings of words until there are 32,000 tokens."""
    vocabulary = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges: list[tuple[str, str]] = []
    for word in words:
        spaced = "Ġ" + word
        for end in range(2, len(spaced) + 1):
            if spaced[:end] not in vocabulary and len(vocabulary) < VOCABULARY - len(SPECIAL):
                vocabulary[spaced[:end]] = len(vocabulary)
                merges.append((spaced[: end - 1], spaced[end - 1]))
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=made, padding_side="left", pad_token=SPECIAL[0], eos_token=SPECIAL[2], model_max_length=4096
    )
    fast.chat_template = TEMPLATE
    return fast


def build(vocabulary: Path, folder: Path) -> None:
    """Save model and tokenizer into ``folder``."""
    lines = vocabulary.read_text(encoding="utf-8").splitlines()
    words = tokenizer([word for word in lines if word.isascii() and word.isalpha()])
    if len(words) != VOCABULARY:
        raise ValueError(f"the vocabulary gives {len(words)} tokens, expected {VOCABULARY}")
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=VOCABULARY,
            hidden_size=768,
            intermediate_size=2048,
            num_hidden_layers=10,
            num_attention_heads=12,
            num_key_value_heads=4,
            head_dim=64,
            max_position_embeddings=4096,
            initializer_range=0.05,  # narrower ones repeat one token for ever
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
    )
    with torch.no_grad():
        # some other token is always likelier than these: every text has as many tokens as were asked for
        model.model.embed_tokens.weight[words.convert_tokens_to_ids(list(SPECIAL))] = 0
    model.generation_config.eos_token_id = words.eos_token_id
    model.generation_config.pad_token_id = words.pad_token_id
    model.generation_config.bos_token_id = None
    model.save_pretrained(str(folder))
    words.save_pretrained(str(folder))
    print(f"{sum(each.numel() for each in model.parameters()):,} parameters")


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]))
