"""What the gateway reads of a request: the few fields that routing needs. The rest is the worker's, untouched."""

import re
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

import orjson

from modelpool_api.body import too_many_parts
from modelpool_gateway.form import FormError, read_field

MAX_MODEL_CHARS: Final = 96
#: The longest that a client may keep a worker for, seconds: a day.
MAX_KEEP_ALIVE_SECONDS: Final = 86_400.0
#: ``keep_alive`` that asks for as long as is allowed.
PINNED: Final = -1.0

_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h)", re.ASCII)
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_MAX_QUERY_FIELDS: Final = 16
#: Pictures that a worker takes as the body itself; the model is named in the URL then.
_IMAGES: Final = frozenset({"image/png", "image/jpeg", "image/webp"})
_FORM: Final = "multipart/form-data"
_KINDS: Final = f"application/json, {_FORM}, {', '.join(sorted(_IMAGES))}"


class BadRequestError(ValueError):
    """The request is not one; the message is ours and may be shown. ``param`` is the field that is meant."""

    def __init__(self, message: str, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.param, self.status = param, status


class Asked(NamedTuple):
    """Who is meant, whether the answer is a stream, and how long the worker shall stay afterwards (None: as it is).

    ``upload``: the body is a form or a picture, not JSON.
    """

    model: str
    stream: bool = False
    keep_alive: float | None = None
    upload: bool = False


def read_request(content_type: str, query: str, body: bytes) -> Asked:
    """Read a request by its Content-Type; none at all is taken for JSON.

    A form names its model in the field ``model``, a picture in the URL, as in ``?model=clip``. Raises
    `BadRequestError`, with status 415 for any other content.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind in ("application/json", "") or (kind.startswith("application/") and kind.endswith("+json")):
        return read_json(body)
    if kind == _FORM:
        try:
            return Asked(read_model(read_field(body, content_type, "model")), upload=True)
        except FormError as error:
            raise BadRequestError(str(error)) from None
    if kind in _IMAGES:
        return Asked(_named_in(query), upload=True)
    raise BadRequestError(f"content of this type is not taken; expected one of {_KINDS}", status=415)


def _named_in(query: str) -> str:
    try:
        fields = dict(parse_qsl(query, max_num_fields=_MAX_QUERY_FIELDS))
    except ValueError:
        raise BadRequestError("the URL's query cannot be read; expected one such as ?model=clip", "model") from None
    if "model" not in fields:
        raise BadRequestError("model is missing in the URL; expected a query such as ?model=clip", "model")
    return read_model(fields["model"])


def read_json(body: bytes) -> Asked:
    """Read the body of a JSON request. Raises `BadRequestError`."""
    if sentence := too_many_parts(body):  # the worker would say the same
        raise BadRequestError(sentence)
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadRequestError('the body is not JSON; expected an object such as {"model": "minilm", …}') from None
    if not isinstance(fields, dict):
        raise BadRequestError('the body is not an object; expected one such as {"model": "minilm", …}')
    return Asked(
        model=read_model(fields.get("model")),
        stream=fields.get("stream") is True,
        keep_alive=read_keep_alive(fields.get("keep_alive")),
    )


def read_model(value: Any) -> str:
    """Return the name of the model. Raises `BadRequestError`."""
    if not isinstance(value, str) or not value:
        raise BadRequestError('model is missing; expected the name of a model, such as "minilm"', "model")
    if len(value) > MAX_MODEL_CHARS:
        raise BadRequestError(f"model is longer than {MAX_MODEL_CHARS} characters", "model")
    return value


def read_keep_alive(value: Any) -> float | None:
    """Return seconds: a number, or text such as "5m"; 0 lets go after this request, any negative one pins.

    Raises `BadRequestError`. The form is Ollama's.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _no_keep_alive()
    seconds = _duration(value) if isinstance(value, str) else float(value)
    if seconds != seconds:
        raise _no_keep_alive()
    return PINNED if seconds < 0 else min(seconds, MAX_KEEP_ALIVE_SECONDS)


def _duration(text: str) -> float:
    sign = -1.0 if text.startswith("-") else 1.0
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdecimal() and len(digits) <= 9:
        return sign * int(digits)
    parts = _DURATION.findall(digits[:64])
    if not parts or "".join(number + unit for number, unit in parts) != digits:
        raise _no_keep_alive()
    return sign * sum(float(number) * _UNITS[unit] for number, unit in parts)


def _no_keep_alive() -> BadRequestError:
    return BadRequestError('keep_alive is no time; expected seconds or text, such as 300, "5m", 0 or -1', "keep_alive")
