"""A request's body, bounded before it is read: what every endpoint that takes JSON begins with. Pure."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from modelpool_worker.errors import InvalidRequestError, ModelNotFoundError

MAX_NESTED: Final = 4096
#: Members of objects, and entries of lists: parsing holds up everything else, for 15 ms at these.
MAX_MEMBERS: Final = 65_536
MAX_ENTRIES: Final = 1_048_576
_LOOK_EVERY: Final = 4096

# linear in the body: nothing is given back, and a string that never ends is taken to its end
_STRING_OR_MARK: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{:,]', re.DOTALL)


def read_object(body: bytes) -> dict[str, Any]:
    """Parse a JSON object, refusing what has far more objects, lists and entries than any request.

    Making those would hold up all others. Raises ``InvalidRequestError``.
    """
    _check_size(body)
    try:
        read = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise InvalidRequestError('the body is not valid JSON; expected an object such as {"model": "…", …}') from None
    if not isinstance(read, dict):
        raise InvalidRequestError('the body is not a JSON object; expected one such as {"model": "…", …}')
    return read


def _check_size(body: bytes) -> None:
    """Raise ``InvalidRequestError`` for a body of too many parts; what stands in strings is none."""
    if _too_many(lambda mark: body.count(mark)) is None:
        return
    outside: Counter[bytes] = Counter()
    for number, match in enumerate(_STRING_OR_MARK.finditer(body)):
        if match.end() - match.start() == 1:
            outside[match.group()] += 1
        if number % _LOOK_EVERY == 0 and (sentence := _too_many(outside.__getitem__)):
            raise InvalidRequestError(sentence)
    if sentence := _too_many(outside.__getitem__):
        raise InvalidRequestError(sentence)


def _too_many(count: Callable[[bytes], int]) -> str | None:
    if count(b"[") + count(b"{") > MAX_NESTED:
        return f"the body has too many lists and objects; expected at most {MAX_NESTED}"
    if count(b":") > MAX_MEMBERS:
        return f"the body's objects have too many members; expected at most {MAX_MEMBERS}"
    if count(b",") > MAX_ENTRIES:
        return f"the body's lists have too many entries; expected at most {MAX_ENTRIES}"
    return None


def check_model(request: Mapping[str, Any], model_name: str) -> None:
    """Raise ``InvalidRequestError`` or ``ModelNotFoundError`` unless the request names the model that is served."""
    model = request.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidRequestError(f'model is missing; expected "model": "{model_name}"', param="model")
    if model != model_name:
        raise ModelNotFoundError(f'this worker serves another model; expected "model": "{model_name}"', param="model")
