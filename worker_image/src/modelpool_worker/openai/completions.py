"""The completions endpoint's request and answer, in OpenAI's shape. Pure: bytes in, bytes out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import orjson

from modelpool_worker.errors import InvalidRequestError
from modelpool_worker.generation.request import Sampling, TextDelta, TextRequest, TokenLogprob
from modelpool_worker.openai.body import check_model, read_object
from modelpool_worker.openai.generated import (
    Answer,
    GeneratedText,
    Identity,
    between,
    choices_of,
    listed,
    quoted,
    shown,
)
from modelpool_worker.openai.sampling import (
    MAX_NEW_TOKENS,
    UNSUPPORTED,
    Form,
    check_whole,
    read_choosing,
    read_form,
    refuse,
    whole_number,
)

MAX_PROMPTS: Final = 64
MAX_CHARS: Final = 1_000_000
MAX_PROMPT_TOKENS: Final = 262_144
MAX_TOKEN_ID: Final = 2**31 - 1
MAX_LOGPROBS: Final = 5
#: How long a text is where nothing is said: OpenAI's own, and short.
DEFAULT_NEW_TOKENS: Final = 16

_EXPECTED: Final = (
    'expected a string, a list of strings, a list of token ids, or a list of such lists: "prompt": "Once upon a time"'
)
_KIND: Final = "text_completion"
_REFUSED: Final[Mapping[str, tuple[Any, ...]]] = {
    **UNSUPPORTED,
    "echo": (False,),
    "suffix": ("",),
    # chat has these: ignored here they would give another answer than was asked for
    "max_completion_tokens": (),
    "response_format": ({"type": "text"},),
    "tools": ([],),
}


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """A checked request: 1 to 64 prompts and how to continue them."""

    prompts: tuple[str | tuple[int, ...], ...]
    sampling: Sampling
    form: Form

    @property
    def size(self) -> int:
        """How many texts it asks for, all prompts together."""
        return len(self.prompts) * self.form.choices

    def texts(self) -> list[TextRequest]:
        """Return a request for each text: all those of the first prompt, then those of the second, and so on."""
        return [
            text
            for prompt in self.prompts
            for text in choices_of(TextRequest(sampling=self.sampling, prompt=prompt), self.form.choices)
        ]


def parse_completion(body: bytes, *, model_name: str) -> CompletionRequest:
    """Read and check a request body; fields that change nothing in the answer are ignored.

    Raises ``InvalidRequestError`` or ``ModelNotFoundError`` with a sentence that repeats nothing of the body.
    """
    request = read_object(body)
    check_model(request, model_name)
    refuse(request, _REFUSED)
    form = read_form(request)
    best_of = request.get("best_of")
    if best_of is not None and (type(best_of) is not int or best_of != form.choices):
        raise InvalidRequestError("best_of is not supported; expected a request without it", param="best_of")
    limit = whole_number(request, "max_tokens", least=1, most=MAX_NEW_TOKENS, example=256)
    sampling = Sampling(
        max_tokens=limit or DEFAULT_NEW_TOKENS,
        top_logprobs=whole_number(request, "logprobs", least=0, most=MAX_LOGPROBS, example=3),
        **read_choosing(request),
    )
    found = CompletionRequest(_prompts(request.get("prompt")), sampling, form)
    check_whole(sampling, form, found.size)
    return found


def _prompts(given: Any) -> tuple[str | tuple[int, ...], ...]:
    if isinstance(given, str):
        return (_text(given),)
    if not isinstance(given, list) or not given:
        raise _wrong(f"prompt is missing or of a wrong kind; {_EXPECTED}")
    if type(given[0]) is int:
        return (_token_ids(given),)
    if len(given) > MAX_PROMPTS:
        raise _wrong(f"prompt holds {len(given)} items; expected at most {MAX_PROMPTS} in one request")
    if all(isinstance(item, str) for item in given):
        return tuple(_text(item) for item in given)
    if all(isinstance(item, list) for item in given):
        return tuple(_token_ids(item) for item in given)
    raise _wrong(f"prompt mixes kinds; {_EXPECTED}")


def _text(text: str) -> str:
    if not 1 <= len(text) <= MAX_CHARS:
        raise _wrong(f"a prompt has {len(text)} characters; expected 1 to {MAX_CHARS}")
    return text


def _token_ids(ids: list[Any]) -> tuple[int, ...]:
    if not 1 <= len(ids) <= MAX_PROMPT_TOKENS:
        raise _wrong(f"a list of token ids has {len(ids)} entries; expected 1 to {MAX_PROMPT_TOKENS}")
    if not all(type(token) is int and 0 <= token <= MAX_TOKEN_ID for token in ids):
        raise _wrong("a token id is wrong; expected whole numbers from 0, such as [101, 7592, 102]")
    return tuple(ids)


def _wrong(sentence: str) -> InvalidRequestError:
    return InvalidRequestError(sentence, param="prompt")


class CompletionAnswer(Answer):
    """A completion's answer, of ``size`` texts."""

    def __init__(self, identity: Identity, form: Form, *, size: int, logprobs: bool) -> None:
        super().__init__(identity, form, kind=_KIND, chunk_kind=_KIND)
        self._logprobs = logprobs
        self._offsets = [0] * size

    def choice(self, index: int, text: GeneratedText) -> Iterator[bytes]:
        """Yield a choice of the whole answer in parts."""
        yield b'{"index":%d,"text":' % index
        yield from quoted(text.texts)
        yield b',"logprobs":'
        if self._logprobs:
            yield b"{"
            yield from between(
                chain([b'"%b":' % name.encode()], listed(column))
                for name, column in self._columns(index, text.logprobs).items()
            )
            yield b"}"
        else:
            yield b"null"
        yield b',"finish_reason":%b}' % orjson.dumps(text.finish)

    def opening(self) -> bytes:
        """Return nothing: a completion begins with its text."""
        return b""

    def events(self, index: int, delta: TextDelta) -> bytes:
        """Return one event for what was added, its end included."""
        if not (delta.text or delta.logprobs or delta.finish):
            return b""
        choice = b'{"index":%d,"text":%b,"logprobs":%b,"finish_reason":%b}' % (
            index,
            orjson.dumps(delta.text),
            orjson.dumps(self._shown(index, delta.logprobs)) if self._logprobs else b"null",
            orjson.dumps(delta.finish),
        )
        return self._event(choice)

    def _shown(self, index: int, tokens: Sequence[TokenLogprob]) -> dict[str, list[Any]]:
        return {name: list(column) for name, column in self._columns(index, tokens).items()}

    def _columns(self, index: int, tokens: Sequence[TokenLogprob]) -> dict[str, Iterator[Any]]:
        """Return logprobs as four columns; an offset is where a token begins in the text, characters."""
        return {
            "tokens": (token.text for token in tokens),
            "token_logprobs": (shown(token.logprob) for token in tokens),
            "top_logprobs": (
                # the chosen token is always among them
                {other.text: shown(other.logprob) for other in (*token.top, token)}
                for token in tokens
            ),
            "text_offset": self._offsets_of(index, tokens),
        }

    def _offsets_of(self, index: int, tokens: Sequence[TokenLogprob]) -> Iterator[int]:
        for token in tokens:
            yield self._offsets[index]
            self._offsets[index] += len(token.text)
