"""Tokens as bytes and text: what each one stands for, and what a growing list of them reads."""

import codecs
import json
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final, Protocol

#: Tokens that the text of a window may take before it is given up waiting for a character's end.
_WINDOW: Final = 32
_UNFINISHED: Final = "\N{REPLACEMENT CHARACTER}"
_BYTE_TOKEN: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class TextStream(Protocol):
    """Turns tokens into text as they come. All its texts joined are the text of all its tokens."""

    def add(self, token: int) -> str:
        """Return what can be said since the last call; nothing while a character is incomplete."""
        ...

    def end(self) -> str:
        """Return what was held back."""
        ...


class Vocabulary:
    """The tokens of a model's tokenizer (of the tokenizers library)."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        added = backend.get_added_tokens_decoder()
        self._special = frozenset(number for number, token in added.items() if token.special)
        self._added = frozenset(added)
        kinds = frozenset(_kinds(json.loads(backend.decoder.__getstate__()) if backend.decoder is not None else None))
        self._bytes_as_letters = kinds == {"ByteLevel"}
        self._has_byte_tokens = "ByteFallback" in kinds
        self._data: Callable[[int], bytes] = lru_cache(maxsize=65_536)(self._read)

    @property
    def special(self) -> frozenset[int]:
        """Ids of the special tokens: they mark things in a prompt and are no text."""
        return self._special

    def data(self, token: int) -> bytes:
        """Return the bytes that a token stands for; none for an id that has no token."""
        return self._data(token)

    def text(self, token: int) -> str:
        """Return a token as text; bytes that are no character on their own become U+FFFD."""
        return self.data(token).decode(errors="replace")

    def stream(self) -> TextStream:
        """Start a text; special tokens are left out of it."""
        if self._bytes_as_letters:
            return _ByteStream(self)
        return _WindowStream(self._backend)

    def special_words(self) -> list[str]:
        """Return the special tokens as they are written."""
        return [word for number in sorted(self._special) if (word := self._backend.id_to_token(number))]

    def longest(self) -> int:
        """Return the length of the longest token, characters: no text has fewer tokens than its length by this."""
        return max((len(token) for token in self._backend.get_vocab(with_added_tokens=True)), default=1)

    def _read(self, token: int) -> bytes:
        word = self._backend.id_to_token(token)
        if word is None:
            return b""
        if self._bytes_as_letters:
            letters = _letters()
            return bytes(letters[letter] for letter in word) if all(each in letters for each in word) else word.encode()
        if token in self._added:
            return str(word).encode()
        if self._has_byte_tokens and (match := _BYTE_TOKEN.fullmatch(word)):
            return bytes((int(match[1], 16),))
        return str(word).replace("▁", " ").encode()


class _ByteStream:
    """For vocabularies whose tokens are bytes: a decoder that keeps what is incomplete does all."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def add(self, token: int) -> str:
        return "" if token in self._vocabulary.special else self._decoder.decode(self._vocabulary.data(token))

    def end(self) -> str:
        return self._decoder.decode(b"", final=True)


class _WindowStream:
    """For any other vocabulary: the library decodes the last few tokens again each time.

    ``_tokens[:_said]`` were said; they stay as what stands before the new ones, which decides about spaces.
    """

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._tokens: list[int] = []
        self._said = 0

    def add(self, token: int) -> str:
        self._tokens.append(token)
        before, after = self._decode(self._tokens[: self._said]), self._decode(self._tokens)
        if (after.endswith(_UNFINISHED) or len(after) <= len(before)) and len(self._tokens) - self._said < _WINDOW:
            return ""
        self._tokens = self._tokens[self._said :]
        self._said = len(self._tokens)
        return after[len(before) :]

    def end(self) -> str:
        before, after = self._decode(self._tokens[: self._said]), self._decode(self._tokens)
        self._tokens, self._said = [], 0
        return after[len(before) :]

    def _decode(self, tokens: list[int]) -> str:
        return str(self._backend.decode(tokens, skip_special_tokens=True)) if tokens else ""


def _kinds(decoder: Any) -> Iterator[str]:
    """Yield the types of a decoder and of those it is a sequence of."""
    if isinstance(decoder, dict):
        if decoder.get("type") == "Sequence":
            for each in decoder.get("decoders", ()):
                yield from _kinds(each)
        else:
            yield str(decoder.get("type"))


@lru_cache(maxsize=1)
def _letters() -> dict[str, int]:
    """Return the byte of each letter by which byte-level vocabularies write bytes.

    Printable bytes of Latin-1 are their own letters; the others are written, in order, from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}
