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
_CHATS: Final = "/v1/chat/completions"

#: capability → entry. One line here and one module make a new capability.
ENTRIES: Final[Mapping[str, Entry]] = MappingProxyType(
    {
        Name.TEXT_EMBEDDING: Entry(
            f"{_HERE}.text_embedding:TextEmbedding", {"/v1/embeddings": f"{_WEB}.embeddings:Embeddings"}
        ),
        Name.TEXT_TO_TEXT: Entry(
            f"{_HERE}.text_to_text:TextToText",
            {_CHATS: f"{_WEB}.chat:Chat", "/v1/completions": f"{_WEB}.completions:Completions"},
        ),
        Name.IMAGE_EMBEDDING: Entry(
            f"{_HERE}.image_embedding:ImageEmbedding", {"/v1/embeddings": f"{_WEB}.image_embeddings:ImageEmbeddings"}
        ),
        Name.VISION: Entry(f"{_HERE}.vision:Vision", {_CHATS: f"{_WEB}.chat:ImageChat"}),
        Name.TEXT_TO_IMAGE: Entry(
            f"{_HERE}.text_to_image:TextToImage", {"/v1/images/generations": f"{_WEB}.images:Images"}
        ),
    }
)


def entry(name: str, entries: Mapping[str, Entry] = ENTRIES) -> Entry:
    """Return the capability's entry; raise ``NeverLoadsError`` for one that is not here."""
    try:
        return entries[name]
    except KeyError:
        known = ", ".join(sorted(entries))
        raise NeverLoadsError(f"this worker image cannot serve {name}; it serves: {known}") from None


def create(name: str, entries: Mapping[str, Entry] = ENTRIES) -> BatchCapability | StepCapability:
    """Import the capability's module and make it, unloaded; raise ``NeverLoadsError`` for one that is not here."""
    return cast("BatchCapability | StepCapability", find(entry(name, entries).model)())


def find(place: str) -> Any:
    """Import what ``module:name`` names."""
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)
