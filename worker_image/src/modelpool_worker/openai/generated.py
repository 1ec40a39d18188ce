"""What chat and completions have in common in their answers: texts put together, usage, logprobs. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import orjson

from modelpool_worker.generation.request import TextDelta, TextRequest, TokenLogprob
from modelpool_worker.openai.sampling import Form
from modelpool_worker.openai.stream import DONE, event

#: JSON has no infinity: what cannot happen is this unlikely, as OpenAI writes it.
LEAST_LOGPROB: Final = -9999.0
#: Deltas of a text that become one string: a string for each would take 60 bytes a token.
_JOINED: Final = 1024
#: What is encoded in one call: characters, items of lists. Nobody else runs meanwhile; in one, the largest whole
#: answer takes 17 ms where it is logprobs and half a second where it is text.
_TEXT_SLICE: Final = 16_384
_ITEMS_SLICE: Final = 16


@dataclass(frozen=True, slots=True)
class Identity:
    """What every chunk of an answer repeats. ``created`` is in seconds since 1970."""

    number: str
    created: int
    model: str


@dataclass(slots=True)
class GeneratedText:
    """One text as far as it has come."""

    texts: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: str | None = None
    _long: int = 0

    def add(self, delta: TextDelta) -> None:
        """Append what a step has added."""
        self.texts.append(delta.text)
        if len(self.texts) - self._long >= _JOINED:
            self.texts[self._long :] = ["".join(self.texts[self._long :])]
            self._long += 1
        self.logprobs.extend(delta.logprobs)
        self.finish = delta.finish or self.finish

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.texts)


class Answer:
    """The bytes of one answer, whole or as events of a stream; they are called ``kind``, chunks ``chunk_kind``.

    Used for one request only.
    """

    def __init__(self, identity: Identity, form: Form, *, kind: str, chunk_kind: str) -> None:
        self._identity = identity
        self._form = form
        self._whole_head = self._head_of(kind)
        self._head = self._head_of(chunk_kind)
        self._tail = b'],"usage":null}' if form.include_usage else b"]}"

    def whole(self, texts: Sequence[GeneratedText], prompt_tokens: int, new_tokens: int) -> Iterator[bytes]:
        """Yield the answer's JSON in parts of bounded size; all of it may take long."""
        yield self._whole_head
        yield from between(self.choice(index, text) for index, text in enumerate(texts))
        yield b'],"usage":' + orjson.dumps(usage(prompt_tokens, new_tokens)) + b"}"

    def choice(self, index: int, text: GeneratedText) -> Iterator[bytes]:
        """Yield one choice of a whole answer as JSON, in parts of bounded size."""
        raise NotImplementedError

    def opening(self) -> bytes:
        """Return the events that come before any text."""
        raise NotImplementedError

    def events(self, index: int, delta: TextDelta) -> bytes:
        """Return the events for what was added to a text; empty where there is nothing to say."""
        raise NotImplementedError

    def closing(self, prompt_tokens: int, new_tokens: int) -> bytes:
        """Return the events after the last text: the usage where it is wanted, and the end."""
        if not self._form.include_usage:
            return DONE
        return event(self._head + b'],"usage":' + orjson.dumps(usage(prompt_tokens, new_tokens)) + b"}") + DONE

    def _head_of(self, kind: str) -> bytes:
        identity = self._identity
        common = {"id": identity.number, "object": kind, "created": identity.created, "model": identity.model}
        return orjson.dumps(common)[:-1] + b',"choices":['

    def _event(self, choice: bytes) -> bytes:
        return event(self._head + choice + self._tail)


def choices_of(request: TextRequest, number: int) -> list[TextRequest]:
    """Return ``number`` requests that differ in their choice."""
    return [
        TextRequest(sampling=request.sampling, messages=request.messages, prompt=request.prompt, choice=choice)
        for choice in range(number)
    ]


def usage(prompt_tokens: int, new_tokens: int) -> dict[str, int]:
    """Return the usage in OpenAI's shape."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": new_tokens,
        "total_tokens": prompt_tokens + new_tokens,
    }


def quoted(texts: Iterable[str]) -> Iterator[bytes]:
    """Yield the JSON string of all texts joined, in parts."""
    yield b'"'
    for text in texts:
        for start in range(0, len(text), _TEXT_SLICE):
            yield orjson.dumps(text[start : start + _TEXT_SLICE])[1:-1]
    yield b'"'


def listed(items: Iterable[Any]) -> Iterator[bytes]:
    """Yield the JSON list of all items, in parts."""
    left = iter(items)
    yield b"["
    yield from between([orjson.dumps(some)[1:-1]] for some in iter(lambda: list(islice(left, _ITEMS_SLICE)), []))
    yield b"]"


def between(groups: Iterable[Iterable[bytes]]) -> Iterator[bytes]:
    """Yield all parts of all groups, with a comma between two groups."""
    for number, parts in enumerate(groups):
        if number:
            yield b","
        yield from parts


def shown(logprob: float) -> float:
    """Return a logprob that JSON can hold."""
    return max(logprob, LEAST_LOGPROB)


def token_entry(token: TokenLogprob) -> dict[str, Any]:
    """Return a token with its logprob and bytes, in the shape of chat answers."""
    return {"token": token.text, "logprob": shown(token.logprob), "bytes": list(token.data)}
