"""The chat endpoint's request and answer, in OpenAI's shape. Pure: bytes in, bytes out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from modelpool_worker.errors import InvalidRequestError
from modelpool_worker.generation.request import Message, Sampling, TextDelta, TextRequest, TokenLogprob
from modelpool_worker.imaging.sources import ImageUrl, parse_image
from modelpool_worker.openai.body import check_model, read_object
from modelpool_worker.openai.generated import Answer, GeneratedText, Identity, choices_of, listed, quoted, token_entry
from modelpool_worker.openai.sampling import (
    MAX_NEW_TOKENS,
    MAX_TOP_LOGPROBS,
    UNSUPPORTED,
    Form,
    boolean,
    check_whole,
    read_choosing,
    read_form,
    refuse,
    whole_number,
)

MAX_MESSAGES: Final = 1024
MAX_PARTS: Final = 256
MAX_IMAGES: Final = 8
MAX_CHARS: Final = 1_000_000

#: role in a request → role for the model's template, which knows none but these three.
_ROLES: Final = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_EXPECTED: Final = 'expected for example "messages": [{"role": "user", "content": "hello"}]'
_REFUSED: Final[Mapping[str, tuple[Any, ...]]] = {
    **UNSUPPORTED,
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "add_generation_prompt": (True,),
}

#: A text, the encoded bytes of an image, or where an image is to be fetched from.
Part = str | bytes | ImageUrl


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A checked request: 1 to 1024 messages (role, parts) and how to answer them."""

    messages: tuple[tuple[str, tuple[Part, ...]], ...]
    sampling: Sampling
    form: Form

    @property
    def size(self) -> int:
        """How many texts it asks for."""
        return self.form.choices

    @property
    def urls(self) -> list[ImageUrl]:
        """The images that are to be fetched, each once."""
        return list(
            dict.fromkeys(part for _role, parts in self.messages for part in parts if isinstance(part, ImageUrl))
        )

    def texts(self, images: Mapping[ImageUrl, bytes]) -> list[TextRequest]:
        """Return a request for each text; ``images`` has what was fetched."""
        messages = tuple(
            Message(role, tuple(images[part] if isinstance(part, ImageUrl) else part for part in parts))
            for role, parts in self.messages
        )
        return choices_of(TextRequest(sampling=self.sampling, messages=messages), self.form.choices)


def parse_chat(body: bytes, *, model_name: str, images: bool) -> ChatRequest:
    """Read and check a request body; fields that change nothing in the answer are ignored.

    ``images``: whether the model takes them. Raises ``InvalidRequestError`` or ``ModelNotFoundError`` with a sentence
    that repeats nothing of the body.
    """
    request = read_object(body)
    check_model(request, model_name)
    refuse(request, _REFUSED)
    form = read_form(request)
    limits = [
        whole_number(request, name, least=1, most=MAX_NEW_TOKENS, example=256)
        for name in ("max_completion_tokens", "max_tokens")
    ]
    sampling = Sampling(
        max_tokens=limits[0] or limits[1], top_logprobs=_top_logprobs(request), **read_choosing(request)
    )
    check_whole(sampling, form, form.choices)
    return ChatRequest(_messages(request.get("messages"), images), sampling, form)


def _top_logprobs(request: Mapping[str, Any]) -> int | None:
    top = whole_number(request, "top_logprobs", least=0, most=MAX_TOP_LOGPROBS, example=5)
    if boolean(request, "logprobs"):
        return top or 0
    if top is not None:
        raise InvalidRequestError('top_logprobs needs logprobs; expected "logprobs": true', param="top_logprobs")
    return None


def _messages(given: Any, images: bool) -> tuple[tuple[str, tuple[Part, ...]], ...]:
    if not isinstance(given, list) or not given:
        raise _wrong(f"messages is missing or no list; {_EXPECTED}")
    if len(given) > MAX_MESSAGES:
        raise _wrong(f"messages has {len(given)} entries; expected at most {MAX_MESSAGES}")
    messages = tuple(_message(each, images) for each in given)
    parts = [part for _role, parts in messages for part in parts]
    chars = sum(len(part) for part in parts if isinstance(part, str))
    if chars > MAX_CHARS:
        raise _wrong(f"messages have {chars} characters; expected at most {MAX_CHARS}")
    number = sum(not isinstance(part, str) for part in parts)
    if number > MAX_IMAGES:
        raise _wrong(f"messages have {number} images; expected at most {MAX_IMAGES}")
    return messages


def _message(given: Any, images: bool) -> tuple[str, tuple[Part, ...]]:
    if not isinstance(given, dict):
        raise _wrong(f"a message is no object; {_EXPECTED}")
    role = given.get("role")
    if role in ("tool", "function") or given.get("tool_calls") or given.get("function_call"):
        raise _wrong("tools are not supported; expected messages of system, user and assistant only")
    if not isinstance(role, str) or role not in _ROLES:
        raise _wrong("a message's role is not known; expected system, developer, user or assistant")
    content = given.get("content")
    if isinstance(content, str):
        return _ROLES[role], (content,)
    if not isinstance(content, list) or not content:
        raise _wrong('a message\'s content is wrong; expected a text or a list of parts: "content": "hello"')
    if len(content) > MAX_PARTS:
        raise _wrong(f"a message has {len(content)} parts; expected at most {MAX_PARTS}")
    return _ROLES[role], tuple(_part(part, images) for part in content)


def _part(given: Any, images: bool) -> Part:
    kind = given.get("type") if isinstance(given, dict) else None
    if kind == "text" and isinstance(given.get("text"), str):
        return str(given["text"])
    if kind == "image_url":
        if not images:
            raise _wrong("this model takes no images; expected parts of type text only")
        image = given.get("image_url")
        url = image.get("url") if isinstance(image, dict) else None
        if isinstance(url, str):
            return parse_image(url, param="messages")
        raise _wrong(
            'an image is wrong; expected {"type": "image_url", "image_url": {"url": "data:image/png;base64,…"}}'
        )
    raise _wrong('a part of a message is wrong; expected for example {"type": "text", "text": "hello"}')


def _wrong(sentence: str) -> InvalidRequestError:
    return InvalidRequestError(sentence, param="messages")


class ChatAnswer(Answer):
    """A chat's answer."""

    def __init__(self, identity: Identity, form: Form, *, logprobs: bool) -> None:
        super().__init__(identity, form, kind="chat.completion", chunk_kind="chat.completion.chunk")
        self._logprobs = logprobs

    def choice(self, index: int, text: GeneratedText) -> Iterator[bytes]:
        """Yield a choice of the whole answer in parts."""
        yield b'{"index":%d,"message":{"role":"assistant","content":' % index
        yield from quoted(text.texts)
        yield b',"refusal":null},"logprobs":'
        if self._logprobs:
            yield b'{"content":'
            yield from listed(map(_entry, text.logprobs))
            yield b',"refusal":null}'
        else:
            yield b"null"
        yield b',"finish_reason":%b}' % orjson.dumps(text.finish)

    def opening(self) -> bytes:
        """Return an event per text that says whose turn it is."""
        role = b'{"role":"assistant","content":"","refusal":null}'
        return b"".join(self._event(_choice(index, role)) for index in range(self._form.choices))

    def events(self, index: int, delta: TextDelta) -> bytes:
        """Return the text's event, then that of its end."""
        said = b""
        if delta.text or delta.logprobs:
            logprobs = orjson.dumps(_logprobs(delta.logprobs)) if self._logprobs else b"null"
            said = self._event(_choice(index, b'{"content":%b}' % orjson.dumps(delta.text), logprobs=logprobs))
        if delta.finish is not None:
            said += self._event(_choice(index, b"{}", finish=orjson.dumps(delta.finish)))
        return said


def _choice(index: int, delta: bytes, *, logprobs: bytes = b"null", finish: bytes = b"null") -> bytes:
    return b'{"index":%d,"delta":%b,"logprobs":%b,"finish_reason":%b}' % (index, delta, logprobs, finish)


def _logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    return {"content": [_entry(token) for token in tokens], "refusal": None}


def _entry(token: TokenLogprob) -> dict[str, Any]:
    return token_entry(token) | {"top_logprobs": [token_entry(other) for other in token.top]}
