"""The paths that workers serve, which capability is asked at which, and with what. Pure."""

from collections.abc import Collection, Mapping
from typing import Final

from modelpool_api import Capability
from modelpool_gateway.errors import GatewayError

_TAKEN_AT: Final[Mapping[str, frozenset[Capability]]] = {
    "/v1/embeddings": frozenset({Capability.TEXT_EMBEDDING, Capability.IMAGE_EMBEDDING}),
    "/v1/chat/completions": frozenset({Capability.TEXT_TO_TEXT, Capability.VISION}),
    "/v1/completions": frozenset({Capability.TEXT_TO_TEXT}),
    "/v1/images/generations": frozenset({Capability.TEXT_TO_IMAGE}),
}
#: Who takes a form or a picture as the body itself; all take JSON.
_TAKES_UPLOADS: Final = frozenset({Capability.IMAGE_EMBEDDING})
#: What workers serve; everything else of theirs is nobody's business.
PATHS: Final = frozenset(_TAKEN_AT)
#: Where an answer may be a stream.
STREAMED: Final = frozenset({"/v1/chat/completions", "/v1/completions"})


_KNOWN: Final = frozenset(Capability)


def takes(capability: str, path: str, *, upload: bool) -> bool:
    """Whether a worker of this capability may answer a request; one that is not known here judges for itself.

    ``upload``: the body is a form or a picture, not JSON.
    """
    if capability not in _KNOWN:
        return True
    return capability in _TAKEN_AT[path] and (not upload or capability in _TAKES_UPLOADS)


def check(capabilities: Collection[str], path: str, *, upload: bool) -> None:
    """Raise `GatewayError` for a request that no worker of any of these capabilities will ever answer."""
    if not capabilities or any(takes(each, path, upload=upload) for each in capabilities):
        return
    names = " and ".join(sorted(set(capabilities)))
    places = sorted(each for each, takers in _TAKEN_AT.items() if takers & set(capabilities))
    if path not in places:
        said = f"this model is for {names} and takes requests at {' and '.join(places)}"
        raise GatewayError(400, "wrong_endpoint", said)
    raise GatewayError(415, "unsupported_content", f"this model is for {names} and takes application/json only")
