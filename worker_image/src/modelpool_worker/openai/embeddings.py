"""The embeddings endpoint's request and answer, in OpenAI's shape. Pure: bytes in, bytes out."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from modelpool_worker.errors import InvalidRequestError
from modelpool_worker.openai.body import check_model, read_object

MAX_INPUTS: Final = 2048
MAX_CHARS: Final = 1_000_000
MAX_TOKENS: Final = 32_768

_EXPECTED: Final = (
    'expected a string, a list of strings, a list of token ids, or a list of such lists: "input": "hello"'
)


class VectorForm(Protocol):
    """In what form vectors are answered."""

    @property
    def as_base64(self) -> bool:
        """Whether as base64 of little-endian float32, else as numbers."""

    @property
    def dimensions(self) -> int | None:
        """How many numbers of each; None: all."""


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """A checked request: 1 to 2048 texts or lists of token ids. ``dimensions`` of None: the model's own."""

    inputs: tuple[str | list[int], ...]
    as_base64: bool
    dimensions: int | None


def parse_request(body: bytes, *, model_name: str, vector_size: int) -> EmbeddingRequest:
    """Read and check a request body; unknown fields are ignored.

    Raises ``InvalidRequestError`` or ``ModelNotFoundError`` with a sentence that repeats nothing of the body.
    """
    request = read_object(body)
    check_model(request, model_name)
    as_base64, dimensions = read_form(request, vector_size)
    return EmbeddingRequest(_inputs(request.get("input")), as_base64, dimensions)


def read_form(request: Mapping[str, Any], vector_size: int) -> tuple[bool, int | None]:
    """Read ``encoding_format`` (base64 or not) and ``dimensions``. Raises ``InvalidRequestError``."""
    encoding = request.get("encoding_format")
    if encoding not in (None, "float", "base64"):
        raise InvalidRequestError('encoding_format is not known; expected "float" or "base64"', param="encoding_format")
    dimensions = request.get("dimensions")
    if dimensions is not None and (type(dimensions) is not int or not 1 <= dimensions <= vector_size):
        raise InvalidRequestError(
            f"dimensions is out of range; expected a whole number from 1 to {vector_size}", param="dimensions"
        )
    return encoding == "base64", dimensions


def encode_answer(form: VectorForm, vectors: Sequence[NDArray[np.float32]], *, model_name: str, tokens: int) -> bytes:
    """Return the answer's JSON: one vector per input, in order. Takes a while for many; call it off the event loop."""
    entries = [
        # one by one: each call holds the interpreter's lock, and the event loop wants its turn in between
        orjson.dumps({"object": "embedding", "index": index, "embedding": _shown(vector, form)}, option=_NUMPY)
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    tail = orjson.dumps({"model": model_name, "usage": usage})[1:]
    return b'{"object":"list","data":[' + b",".join(entries) + b"]," + tail


_NUMPY: Final = orjson.OPT_SERIALIZE_NUMPY


def shorten(vector: NDArray[np.float32], dimensions: int | None) -> NDArray[np.float32]:
    """Return the first ``dimensions`` numbers, made length 1 again; the vector itself where nothing is cut."""
    if dimensions is None or dimensions == len(vector):
        return vector
    cut = vector[:dimensions]
    length = float(np.linalg.norm(cut))
    return np.ascontiguousarray(cut / length if length else cut, dtype=np.float32)


def _shown(vector: NDArray[np.float32], form: VectorForm) -> Any:
    cut = shorten(vector, form.dimensions)
    if form.as_base64:
        return base64.b64encode(cut.astype("<f4").tobytes()).decode("ascii")
    return np.ascontiguousarray(cut, dtype=np.float32)


def _inputs(given: Any) -> tuple[str | list[int], ...]:
    if isinstance(given, str):
        return (check_text(given),)
    if not isinstance(given, list) or not given:
        raise InvalidRequestError(f"input is missing or of a wrong kind; {_EXPECTED}", param="input")
    if type(given[0]) is int:
        return (_token_ids(given),)
    if len(given) > MAX_INPUTS:
        raise InvalidRequestError(
            f"input holds {len(given)} items; expected at most {MAX_INPUTS} in one request", param="input"
        )
    if all(isinstance(item, str) for item in given):
        return tuple(check_text(item) for item in given)
    if all(isinstance(item, list) for item in given):
        return tuple(_token_ids(item) for item in given)
    raise InvalidRequestError(f"input mixes kinds; {_EXPECTED}", param="input")


def check_text(text: str) -> str:
    """Return a text of allowed length; raise ``InvalidRequestError`` for an empty or too long one."""
    if not text:
        raise InvalidRequestError('input holds an empty string; expected text such as "hello"', param="input")
    if len(text) > MAX_CHARS:
        raise InvalidRequestError(
            f"a text of input has {len(text)} characters; expected at most {MAX_CHARS}", param="input"
        )
    return text


def _token_ids(ids: list[Any]) -> list[int]:
    if not ids or len(ids) > MAX_TOKENS:
        raise InvalidRequestError(
            f"a list of token ids has {len(ids)} entries; expected 1 to {MAX_TOKENS}", param="input"
        )
    if not all(type(token) is int and token >= 0 for token in ids):
        raise InvalidRequestError(
            "a token id is wrong; expected whole numbers from 0, such as [101, 7592, 102]", param="input"
        )
    return ids
