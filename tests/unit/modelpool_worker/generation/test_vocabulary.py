"""Tokens as text, one by one, against the tokenizers library's decoding of the whole."""

import random

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from modelpool_worker.generation.vocabulary import Vocabulary
from tiny_models.byte_level import SPECIAL, byte_level

pytestmark = pytest.mark.models

BYTES = byte_level().backend_tokenizer
TEXTS = ["Größe, naïve façade", "東京 🚀 ok", "  two  spaces ", "a\nb\tc", "👩‍👩‍👧 é", "x"]


def with_byte_tokens():
    """As SentencePiece models are: ▁ for a space, unknown characters byte by byte."""
    words = [f"<0x{byte:02X}>" for byte in range(256)] + ["<unk>", "</s>", "▁", *"abcdefghijklmnopqrstuvwxyz"]
    model = models.BPE(
        {word: number for number, word in enumerate(words)}, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True
    )
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken("</s>", special=True)])
    return tokenizer


def with_word_pieces():
    words = ["[UNK]", "hello", "##s", "world", "##wide", ",", "!"]
    tokenizer = Tokenizer(models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def streamed(backend, tokens):
    stream = Vocabulary(backend).stream()
    return [stream.add(token) for token in tokens] + [stream.end()]


def test_random_bytes_read_the_same_token_by_token_as_at_once():
    """Half characters, bytes that are no text at all, special tokens and ids that have no token are among them."""
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    size = BYTES.get_vocab_size()
    for _ in range(300):
        tokens = [rng.randrange(size + 3) for _ in range(rng.randrange(1, 60))]
        assert "".join(streamed(BYTES, tokens)) == BYTES.decode(tokens, skip_special_tokens=True), tokens


@pytest.mark.parametrize("backend", [BYTES, with_byte_tokens(), with_word_pieces()], ids=["bytes", "pieces", "words"])
@pytest.mark.parametrize("text", [*TEXTS, "hello worlds, worldwide!"])
def test_a_text_reads_the_same_token_by_token_as_at_once(backend, text):
    tokens = backend.encode(text, add_special_tokens=False).ids
    assert "".join(streamed(backend, tokens)) == backend.decode(tokens, skip_special_tokens=True)


@pytest.mark.parametrize("backend", [BYTES, with_byte_tokens()], ids=["bytes", "pieces"])
def test_a_character_comes_when_its_last_byte_does(backend):
    tokens = backend.encode("🚀a", add_special_tokens=False).ids[-5:]
    assert streamed(backend, tokens) == ["", "", "", "🚀", "a", ""]


def test_bytes_that_never_become_a_character_are_not_waited_for_for_ever():
    backend = with_byte_tokens()
    token = backend.token_to_id("<0xFF>")
    texts = streamed(backend, [token] * 200)
    assert max(map(len, texts)) <= 40
    assert "".join(texts) == "\N{REPLACEMENT CHARACTER}" * 200


@pytest.mark.parametrize(
    ("backend", "token", "data"),
    [
        (BYTES, BYTES.encode("ä").ids[0], b"\xc3"),
        (BYTES, BYTES.encode(" the").ids[0], b" the"),
        (BYTES, BYTES.token_to_id("<|im_end|>"), b"<|im_end|>"),
        (BYTES, 100_000, b""),
        (with_byte_tokens(), 0xC3, b"\xc3"),
        (with_byte_tokens(), with_byte_tokens().token_to_id("▁"), b" "),
        (with_byte_tokens(), with_byte_tokens().token_to_id("</s>"), b"</s>"),
    ],
    ids=["half", "word", "special", "none", "byte token", "space", "special piece"],
)
def test_a_token_has_its_bytes(backend, token, data):
    vocabulary = Vocabulary(backend)
    assert vocabulary.data(token) == data
    assert vocabulary.text(token) == data.decode(errors="replace")


def test_every_byte_has_a_token_of_its_own():
    vocabulary = Vocabulary(BYTES)
    assert {vocabulary.data(token) for token in range(BYTES.get_vocab_size())} >= {
        bytes((byte,)) for byte in range(256)
    }


def test_special_tokens_are_told_as_they_are_written():
    assert set(Vocabulary(BYTES).special_words()) == set(SPECIAL)
    assert Vocabulary(with_word_pieces()).special_words() == []


def test_no_text_has_fewer_tokens_than_its_length_by_the_longest_token():
    vocabulary = Vocabulary(BYTES)
    for text in [*TEXTS, " sentence" * 50]:
        assert len(BYTES.encode(text, add_special_tokens=False).ids) >= len(text) // vocabulary.longest()
