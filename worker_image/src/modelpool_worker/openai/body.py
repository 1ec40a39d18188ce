"""A request's body, bounded before it is read: what every endpoint that takes JSON begins with. Pure."""

import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from modelpool_worker.errors import InvalidRequestError, ModelNotFoundError

MAX_NESTED: Final = 4096

# linear in the body: nothing is given back, and a string that never ends is taken to its end
_STRING_OR_BRACKET: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]', re.DOTALL)


def read_object(body: bytes) -> dict[str, Any]:
    """Parse a JSON object, refusing what has far more objects and lists than any request.

    Making those would hold up all others. Raises ``InvalidRequestError``.
    """
    if body.count(b"[") + body.count(b"{") > MAX_NESTED:
        outside = 0
        for match in _STRING_OR_BRACKET.finditer(body):
            outside += match.end() - match.start() == 1
            if outside > MAX_NESTED:
                raise InvalidRequestError(f"the body has too many lists and objects; expected at most {MAX_NESTED}")
    try:
        read = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise InvalidRequestError('the body is not valid JSON; expected an object such as {"model": "…", …}') from None
    if not isinstance(read, dict):
        raise InvalidRequestError('the body is not a JSON object; expected one such as {"model": "…", …}')
    return read


def check_model(request: Mapping[str, Any], model_name: str) -> None:
    """Raise ``InvalidRequestError`` or ``ModelNotFoundError`` unless the request names the model that is served."""
    model = request.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidRequestError(f'model is missing; expected "model": "{model_name}"', param="model")
    if model != model_name:
        raise ModelNotFoundError(f'this worker serves another model; expected "model": "{model_name}"', param="model")
