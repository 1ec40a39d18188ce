"""The texts of the benchmark: always the same, made of a vocabulary's own words, so that a word is about a token."""

import random
from collections.abc import Sequence
from pathlib import Path

SENTENCE_WORDS = (5, 10, 20, 40)
PROMPT_WORDS = (20, 90)
SEED = 20
_COMMON = slice(2000, 12_000)  # a BERT vocabulary is sorted by how common a word is, after its special tokens


def common_words(vocabulary: Path) -> list[str]:
    """Whole English words of a WordPiece vocabulary (``vocab.txt``), the most common first."""
    lines = vocabulary.read_text(encoding="utf-8").splitlines()[_COMMON]
    return [word for word in lines if word.isascii() and word.isalpha() and len(word) > 2]


def sentences(words: Sequence[str], count: int) -> list[str]:
    """So many different sentences of 5, 10, 20 and 40 words, as many of each, mixed."""
    draw = random.Random(SEED)
    lengths = [SENTENCE_WORDS[number % len(SENTENCE_WORDS)] for number in range(count)]
    draw.shuffle(lengths)
    return [" ".join(draw.choices(words, k=length)).capitalize() + "." for length in lengths]


def prompts(words: Sequence[str], count: int) -> list[str]:
    """So many different prompts of 20 to 90 words, evenly spread and mixed."""
    draw = random.Random(SEED)
    low, high = PROMPT_WORDS
    lengths = [low + round(number * (high - low) / max(1, count - 1)) for number in range(count)]
    draw.shuffle(lengths)
    return [" ".join(draw.choices(words, k=length)) for length in lengths]
