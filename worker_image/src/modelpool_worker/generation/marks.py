"""Finds marks in texts: what a model takes for the beginning of a message or for an image instead of for text.

Imports the tokenizers library, which looks for all marks at once and without Python's lock. A regular expression of
a thousand marks would hold that lock for seconds where a text is long, and nothing else would be answered meanwhile.
"""

from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Tokenizer, models


class Marks:
    """A set of words. One thread at a time."""

    def __init__(self, words: Iterable[str]) -> None:
        """``words`` may be none; empty ones are no marks."""
        known = sorted({word for word in words if word})
        self._firsts = sorted({word[0] for word in known})
        # what stands between marks is one token, 0, named as no mark is
        rest = "?" * (1 + max(map(len, known), default=0))
        self._finder = Tokenizer(models.WordLevel({rest: 0}, unk_token=rest))
        self._finder.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in known])

    def are_in(self, texts: Sequence[str]) -> bool:
        """Return whether any of the texts holds a mark."""
        # most texts hold not even a mark's first character, and are done with in no time
        doubtful = [text for text in texts if any(first in text for first in self._firsts)]
        if not doubtful:
            return False
        found = self._finder.encode_batch_fast(doubtful, add_special_tokens=False)
        return any(any(encoding.ids) for encoding in found)
