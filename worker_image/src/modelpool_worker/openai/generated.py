"""What chat and completions have in common in their answers: texts put together, usage, logprobs. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from modelpool_worker.generation.request import TextDelta, TextRequest, TokenLogprob
from modelpool_worker.openai.sampling import Form
from modelpool_worker.openai.stream import DONE, event

#: JSON has no infinity: what cannot happen is this unlikely, as OpenAI writes it.
LEAST_LOGPROB: Final = -9999.0


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

    def add(self, delta: TextDelta) -> None:
        """Append what a step has added."""
        self.texts.append(delta.text)
        self.logprobs.extend(delta.logprobs)
        self.finish = delta.finish or self.finish

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.texts)


class Answer:
    """The bytes of one answer, whole or as events of a stream; ``kind`` is what its chunks are called.

    Used for one request only.
    """

    def __init__(self, identity: Identity, form: Form, *, kind: str) -> None:
        self._identity = identity
        self._form = form
        self._head = orjson.dumps(self._common(kind))[:-1] + b',"choices":['
        self._tail = b'],"usage":null}' if form.include_usage else b"]}"

    def whole(self, texts: Sequence[GeneratedText], prompt_tokens: int, new_tokens: int) -> bytes:
        """Return the answer's JSON; takes long where there are many logprobs."""
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

    def _common(self, kind: str) -> dict[str, Any]:
        return {
            "id": self._identity.number,
            "object": kind,
            "created": self._identity.created,
            "model": self._identity.model,
        }

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


def shown(logprob: float) -> float:
    """Return a logprob that JSON can hold."""
    return max(logprob, LEAST_LOGPROB)


def token_entry(token: TokenLogprob) -> dict[str, Any]:
    """Return a token with its logprob and bytes, in the shape of chat answers."""
    return {"token": token.text, "logprob": shown(token.logprob), "bytes": list(token.data)}
