"""What a worker can do. One worker serves one model with one capability."""

from enum import StrEnum


class Capability(StrEnum):
    """The kinds of work; the value is what users write in ``spec.model.capability``."""

    TEXT_EMBEDDING = "text-embedding"
    TEXT_TO_TEXT = "text-to-text"
    IMAGE_EMBEDDING = "image-embedding"
    VISION = "vision"
    TEXT_TO_IMAGE = "text-to-image"
