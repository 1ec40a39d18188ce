"""Which module serves which capability, and at which paths.

Modules are imported by name, so that a worker pays only for its own.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, cast

from modelpool_api import Capability as Name
from modelpool_worker.capabilities.base import BatchCapability, StepCapability
from modelpool_worker.errors import NeverLoadsError


@dataclass(frozen=True, slots=True)
class Entry:
    """``model`` is the capability's module:class, ``endpoints`` maps a path to the module:class that serves it."""

    model: str
    endpoints: Mapping[str, str] = field(default_factory=dict)


_HERE: Final = "modelpool_worker.capabilities"
_WEB: Final = "modelpool_worker.web"
_CHAT: Final = {"/v1/chat/completions": f"{_WEB}.chat:Chat"}

#: capability → entry. One line here and one module make a new capability.
ENTRIES: Final[Mapping[str, Entry]] = MappingProxyType(
    {
        Name.TEXT_EMBEDDING: Entry(
            f"{_HERE}.text_embedding:TextEmbedding", {"/v1/embeddings": f"{_WEB}.embeddings:Embeddings"}
        ),
        Name.TEXT_TO_TEXT: Entry(
            f"{_HERE}.text_to_text:TextToText", {**_CHAT, "/v1/completions": f"{_WEB}.completions:Completions"}
        ),
        Name.IMAGE_EMBEDDING: Entry(
            f"{_HERE}.image_embedding:ImageEmbedding", {"/v1/embeddings": f"{_WEB}.image_embeddings:ImageEmbeddings"}
        ),
        Name.VISION: Entry(f"{_HERE}.vision:Vision", _CHAT),
        Name.TEXT_TO_IMAGE: Entry(
            f"{_HERE}.text_to_image:TextToImage", {"/v1/images/generations": f"{_WEB}.images:Images"}
        ),
    }
)


def entry(name: str) -> Entry:
    """Return the capability's entry; raise ``NeverLoadsError`` for one that is not here."""
    try:
        return ENTRIES[name]
    except KeyError:
        known = ", ".join(sorted(ENTRIES))
        raise NeverLoadsError(f"this worker image cannot serve {name}; it serves: {known}") from None


def create(name: str) -> BatchCapability | StepCapability:
    """Import the capability's module and make it, unloaded; raise ``NeverLoadsError`` for one that is not here."""
    return cast("BatchCapability | StepCapability", find(entry(name).model)())


def find(place: str) -> Any:
    """Import what ``module:name`` names."""
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)
