"""What a prompt may be, for every kind of text generator. No model library here."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from modelpool_worker.capabilities.base import Prepared
from modelpool_worker.errors import ContextLengthError, InvalidRequestError
from modelpool_worker.generation.prompt import GenerationPrompt
from modelpool_worker.generation.request import Message, Sampling

if TYPE_CHECKING:
    from modelpool_worker.generation.marks import Marks

#: Tokens of an answer where the request names no number.
UNSAID_MAX_TOKENS: Final = 1024


def count_answer(prompt_tokens: int, sampling: Sampling, context: int, param: str) -> int:
    """Return how many tokens the answer may have; raise ``InvalidRequestError`` where the context does not hold it."""
    if prompt_tokens == 0:
        raise InvalidRequestError(f"{param} has no tokens; expected at least one", param=param)
    if prompt_tokens >= context:
        raise too_long(str(prompt_tokens), context, param)
    if sampling.max_tokens is None:
        return min(context - prompt_tokens, UNSAID_MAX_TOKENS)
    if prompt_tokens + sampling.max_tokens > context:
        raise ContextLengthError(
            f"{param} has {prompt_tokens} tokens and max_tokens asks for {sampling.max_tokens}, together this model "
            f"takes at most {context}; expected max_tokens of at most {context - prompt_tokens}",
            param=param,
        )
    return sampling.max_tokens


def too_long(tokens: str, context: int, param: str) -> InvalidRequestError:
    """Say that a prompt leaves no room for an answer; ``tokens`` is its length in words, such as ``at least 900``."""
    return ContextLengthError(
        f"{param} has {tokens} tokens, this model takes at most {context} with the answer; expected fewer", param=param
    )


def refuse_special(marks: "Marks", texts: Sequence[str], param: str) -> None:
    """Raise ``InvalidRequestError`` where a text holds what the model would take for a mark instead of for text."""
    if marks.are_in(texts):
        raise InvalidRequestError(
            f"{param} holds one of this model's special tokens, which mark where messages begin and end; expected "
            "plain text, or token ids as prompt at /v1/completions",
            param=param,
        )


def texts_of(messages: Sequence[Message]) -> list[str]:
    """Return all texts of the messages."""
    return [part for message in messages for part in message.parts if isinstance(part, str)]


def as_row(prompt: GenerationPrompt) -> Prepared:
    """Return a prompt as the queue takes it; tokens that choices share are counted with the first."""
    length = len(prompt.ids)
    return Prepared(prompt, cost=length + prompt.max_new_tokens, tokens=0 if prompt.choice else length)
