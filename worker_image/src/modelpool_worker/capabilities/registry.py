"""Which module serves which capability. Imported by name, so that a worker pays only for its own."""

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, cast

from modelpool_api import Capability as Name
from modelpool_worker.capabilities.base import Capability
from modelpool_worker.errors import NeverLoadsError

#: capability → module:class. One line here and one module make a new capability.
MODULES: Final[Mapping[str, str]] = MappingProxyType(
    {Name.TEXT_EMBEDDING: "modelpool_worker.capabilities.text_embedding:TextEmbedding"}
)


def create(name: str) -> Capability:
    """Import the capability's module and make it, unloaded; raise ``NeverLoadsError`` for one that is not here."""
    try:
        module, _, attribute = MODULES[name].partition(":")
    except KeyError:
        known = ", ".join(sorted(MODULES))
        raise NeverLoadsError(f"this worker image cannot serve {name}; it serves: {known}") from None
    return cast("Capability", getattr(importlib.import_module(module), attribute)())
