"""The fields that chat and completions share: how to choose tokens, how many texts, in what form. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from modelpool_worker.errors import InvalidRequestError
from modelpool_worker.generation.prompt_checks import UNSAID_MAX_TOKENS
from modelpool_worker.generation.request import Sampling

MAX_CHOICES: Final = 8
MAX_NEW_TOKENS: Final = 1_048_576
MAX_TOP_LOGPROBS: Final = 20
#: What an answer that is not streamed may come to, since it is held whole: tokens, and entries of logprobs, each of
#: which takes about 165 bytes while it is gathered and 90 in the answer. Who names no length gets all there is to ask
#: for: 8 texts with the 20 likeliest tokens beside each of theirs, 28 MB.
MAX_WHOLE_TOKENS: Final = MAX_NEW_TOKENS
MAX_ENTRIES: Final = MAX_CHOICES * UNSAID_MAX_TOKENS * (MAX_TOP_LOGPROBS + 1)
MAX_STOPS: Final = 4
MAX_STOP_CHARS: Final = 256
MIN_SEED: Final = -(2**63)
MAX_SEED: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Form:
    """In what form the answer comes: ``choices`` texts for each prompt, as a stream or whole."""

    choices: int = 1
    stream: bool = False
    include_usage: bool = False


def read_form(request: Mapping[str, Any]) -> Form:
    """Read ``n``, ``stream`` and ``stream_options``. Raises ``InvalidRequestError``."""
    choices = whole_number(request, "n", least=1, most=MAX_CHOICES, example=2)
    stream = boolean(request, "stream")
    options = request.get("stream_options")
    if options is None:
        return Form(choices or 1, stream)
    if not stream:
        raise InvalidRequestError('stream_options is only for streams; expected "stream": true', param="stream_options")
    if not isinstance(options, dict):
        raise InvalidRequestError(
            'stream_options is no object; expected {"include_usage": true}', param="stream_options"
        )
    return Form(choices or 1, stream, boolean(options, "include_usage"))


def read_stops(request: Mapping[str, Any]) -> tuple[str, ...]:
    """Read ``stop``: a string or up to 4 of them, of 1 to 256 characters each. Raises ``InvalidRequestError``."""
    given = request.get("stop")
    if given is None:
        return ()
    stops = given if isinstance(given, list) else [given]
    if len(stops) > MAX_STOPS:
        raise InvalidRequestError(f"stop has {len(stops)} strings; expected at most {MAX_STOPS}", param="stop")
    if not all(isinstance(stop, str) and 1 <= len(stop) <= MAX_STOP_CHARS for stop in stops):
        raise InvalidRequestError(
            f'stop is wrong; expected strings of 1 to {MAX_STOP_CHARS} characters, such as ["\\n\\n"]', param="stop"
        )
    return tuple(stops)


def read_choosing(request: Mapping[str, Any]) -> dict[str, Any]:
    """Read what both endpoints call alike, as arguments for ``Sampling``. Raises ``InvalidRequestError``."""
    return {
        "temperature": number(request, "temperature", least=0, most=2, default=1),
        "top_p": number(request, "top_p", least=0, most=1, default=1, above=True),
        "presence_penalty": number(request, "presence_penalty", least=-2, most=2, default=0),
        "frequency_penalty": number(request, "frequency_penalty", least=-2, most=2, default=0),
        "seed": whole_number(request, "seed", least=MIN_SEED, most=MAX_SEED, example=42),
        "stop": read_stops(request),
    }


def check_whole(sampling: Sampling, form: Form, texts: int) -> None:
    """Raise ``InvalidRequestError`` where an answer that is not streamed, so held whole, may become too large."""
    if form.stream:
        return
    tokens = texts * (sampling.max_tokens or UNSAID_MAX_TOKENS)
    if tokens > MAX_WHOLE_TOKENS:
        raise InvalidRequestError(
            f"{tokens} tokens are too many for one answer; expected texts × max_tokens of at most {MAX_WHOLE_TOKENS}, "
            'or "stream": true',
            param="max_tokens",
        )
    entries = 0 if sampling.top_logprobs is None else tokens * (sampling.top_logprobs + 1)
    if entries > MAX_ENTRIES:
        raise InvalidRequestError(
            f"logprobs of {entries} entries are too many for one answer; expected texts × max_tokens × (likeliest "
            f'tokens asked for + 1) of at most {MAX_ENTRIES}, such as "max_tokens": '
            f'{max(1, MAX_ENTRIES // (entries // tokens * texts))}, or "stream": true',
            param="logprobs",
        )


def number(
    request: Mapping[str, Any], name: str, *, least: float, most: float, default: float, above: bool = False
) -> float:
    """Return a number from ``least`` (``above`` it where that is said) to ``most``; ``default`` for null."""
    given = request.get(name)
    if given is None:
        return float(default)
    # written so that what is not a number at all, NaN, is out of range
    if type(given) not in (int, float) or not (least < given <= most or (given == least and not above)):
        start = "above" if above else "from"
        raise InvalidRequestError(
            f"{name} is wrong; expected a number {start} {least:g} to {most:g}, such as {(least + most) / 2:g}",
            param=name,
        )
    return float(given)


def whole_number(request: Mapping[str, Any], name: str, *, least: int, most: int, example: int) -> int | None:
    """Return a whole number from ``least`` to ``most``; None for null."""
    given = request.get(name)
    # true is an int to Python
    if given is not None and (type(given) is not int or not least <= given <= most):
        raise InvalidRequestError(
            f"{name} is wrong; expected a whole number from {least} to {most}, such as {example}", param=name
        )
    return given


def boolean(request: Mapping[str, Any], name: str) -> bool:
    """Return true or false; false for null."""
    given = request.get(name)
    if given is not None and not isinstance(given, bool):
        raise InvalidRequestError(f'{name} is wrong; expected true or false: "{name}": true', param=name)
    return bool(given)


def refuse(request: Mapping[str, Any], harmless: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse fields that would change the answer in a way that is not done here.

    ``harmless`` has the values of each such field that ask for nothing, besides null.
    Raises ``InvalidRequestError``.
    """
    for name, values in harmless.items():
        given = request.get(name)
        # the type as well: to Python true equals 1
        if given is not None and not any(type(given) is type(value) and given == value for value in values):
            raise InvalidRequestError(f"{name} is not supported; expected a request without it", param=name)


#: What neither endpoint does. The last ones are not OpenAI's: other servers take them.
UNSUPPORTED: Final[Mapping[str, tuple[Any, ...]]] = {
    "logit_bias": ({},),
    "top_k": (-1, 0),
    "min_p": (0, 0.0),
    "repetition_penalty": (1, 1.0),
    "length_penalty": (1, 1.0),
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "use_beam_search": (False,),
    "structured_outputs": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
}
