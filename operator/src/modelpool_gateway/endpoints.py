"""The paths that workers serve, and which capability is asked at which. Pure."""

from collections.abc import Mapping
from typing import Final

from modelpool_api import Capability
from modelpool_gateway.errors import GatewayError

_TAKEN_AT: Final[Mapping[str, frozenset[Capability]]] = {
    "/v1/embeddings": frozenset({Capability.TEXT_EMBEDDING, Capability.IMAGE_EMBEDDING}),
    "/v1/chat/completions": frozenset({Capability.TEXT_TO_TEXT, Capability.VISION}),
    "/v1/completions": frozenset({Capability.TEXT_TO_TEXT}),
    "/v1/images/generations": frozenset({Capability.TEXT_TO_IMAGE}),
}
#: What workers serve; everything else of theirs is nobody's business.
PATHS: Final = frozenset(_TAKEN_AT)
#: Where an answer may be a stream.
STREAMED: Final = frozenset({"/v1/chat/completions", "/v1/completions"})


def check_path(path: str, capability: str) -> None:
    """Raise `GatewayError` for a path at which no worker of this capability will ever answer.

    Asked before a worker is started for a request; a capability that is not known here is left to the worker to judge.
    """
    places = sorted(each for each, takers in _TAKEN_AT.items() if capability in takers)
    if places and path not in places:
        said = f"this model is for {capability} and takes requests at {' and '.join(places)}"
        raise GatewayError(400, "wrong_endpoint", said)
