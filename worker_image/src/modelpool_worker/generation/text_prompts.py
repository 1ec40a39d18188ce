"""What a request for text is to the model: token ids, within its context. Imports the tokenizers library."""

from collections.abc import Sequence
from typing import Any

from modelpool_worker.capabilities.base import Prepared
from modelpool_worker.errors import InvalidRequestError
from modelpool_worker.generation.chat_template import ChatTemplate
from modelpool_worker.generation.marks import Marks
from modelpool_worker.generation.prompt import GenerationPrompt
from modelpool_worker.generation.prompt_checks import as_row, count_answer, refuse_special, texts_of, too_long
from modelpool_worker.generation.request import Message, TextRequest
from modelpool_worker.generation.vocabulary import Vocabulary


class TextPrompts:
    """Makes prompts of requests. One thread at a time. ``context`` is how long prompt and answer may be together."""

    def __init__(self, tokenizer: Any, vocabulary: Vocabulary, context: int, vocabulary_size: int) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._template = _template(tokenizer)
        self._special = Marks(vocabulary.special_words())
        self._longest_token = vocabulary.longest()
        self._context = context
        self._vocabulary_size = vocabulary_size

    def prepare(self, requests: Sequence[TextRequest]) -> list[Prepared]:
        """Make prompts ready, one each, in order. Raises ``InvalidRequestError``."""
        known: dict[tuple[tuple[Message, ...], str | tuple[int, ...]], tuple[int, ...]] = {}
        prepared: list[Prepared] = []
        for request in requests:
            source = (request.messages, request.prompt)
            if source not in known:
                known[source] = self._ids(request)
            ids, sampling = known[source], request.sampling
            count = count_answer(len(ids), sampling, self._context, "messages" if request.messages else "prompt")
            prepared.append(as_row(GenerationPrompt(ids, sampling, count, request.choice)))
        return prepared

    def close(self) -> None:
        """End what renders the chat template."""
        if self._template is not None:
            self._template.close()

    def _ids(self, request: TextRequest) -> tuple[int, ...]:
        if request.messages:
            return self._encode(self._rendered(request.messages), add_special_tokens=False)
        if isinstance(request.prompt, str):
            self._refuse_far_too_long(request.prompt, "prompt")
            refuse_special(self._special, [request.prompt], "prompt")
            return self._encode(request.prompt, add_special_tokens=True)
        if any(not 0 <= token < self._vocabulary_size for token in request.prompt):
            raise InvalidRequestError(
                f"a token id is not in this model's vocabulary; expected 0 to {self._vocabulary_size - 1}",
                param="prompt",
            )
        return request.prompt

    def _rendered(self, messages: Sequence[Message]) -> str:
        if self._template is None:
            raise InvalidRequestError(
                "this model has no chat template; expected a prompt in its own format, at /v1/completions",
                param="messages",
            )
        texts = texts_of(messages)
        if len(texts) < sum(len(message.parts) for message in messages):
            raise InvalidRequestError(
                'this model takes no images; expected for example {"role": "user", "content": "Hello"}',
                param="messages",
            )
        refuse_special(self._special, texts, "messages")
        rendered = self._template.render(
            [{"role": message.role, "content": "\n".join(texts_of([message]))} for message in messages]
        )
        # not before: templates may leave out what is too long
        self._refuse_far_too_long(rendered, "messages")
        return rendered

    def _refuse_far_too_long(self, text: str, param: str) -> None:
        # no text has fewer tokens than this: what is far too long is not worth the time
        least = len(text) // self._longest_token
        if least > self._context:
            raise too_long(f"at least {least}", self._context, param)

    def _encode(self, text: str, *, add_special_tokens: bool) -> tuple[int, ...]:
        return tuple(self._backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0].ids)


def _template(tokenizer: Any) -> ChatTemplate | None:
    source = tokenizer.chat_template
    if isinstance(source, dict):
        source = source.get("default")
    if not source:
        return None
    names = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
    tokens = {name: getattr(tokenizer, name, None) for name in names}
    return ChatTemplate(source, {name: str(token) for name, token in tokens.items() if token is not None})
