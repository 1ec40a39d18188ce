"""A request's body, bounded before it is read: what every endpoint that takes JSON begins with. Pure."""

from collections.abc import Mapping
from typing import Any

import orjson

from modelpool_api.body import too_many_parts
from modelpool_worker.errors import InvalidRequestError, ModelNotFoundError


def read_object(body: bytes) -> dict[str, Any]:
    """Parse a JSON object, refusing what has far more objects, lists and entries than any request.

    Making those would hold up all others. Raises ``InvalidRequestError``.
    """
    if sentence := too_many_parts(body):
        raise InvalidRequestError(sentence)
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
