"""The embeddings endpoint's request where the model takes images: as JSON, as a form, or as the image itself. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

from modelpool_worker.errors import InvalidRequestError
from modelpool_worker.imaging.encoded import EncodedImage, encoded_image
from modelpool_worker.imaging.sources import MAX_IMAGE_BYTES, MEDIA_TYPES, ImageUrl, parse_image
from modelpool_worker.openai.body import check_model, read_object
from modelpool_worker.openai.embeddings import check_text, read_form
from modelpool_worker.openai.multipart import read_parts

MAX_INPUTS: Final = 64

_MAX_FIELD_BYTES: Final = 1024
_MAX_QUERY_FIELDS: Final = 16
_IMAGE_FIELDS: Final = ("image", "image[]", "file")
_EXPECTED: Final = 'expected "input": {"image": "data:image/png;base64,…"}, a text, or a list of such'

Input = EncodedImage | ImageUrl | str


@dataclass(frozen=True, slots=True)
class ImageEmbeddingRequest:
    """A checked request: 1 to 64 images (in it or at a URL) and texts. ``dimensions`` of None: the model's own."""

    inputs: tuple[Input, ...]
    as_base64: bool
    dimensions: int | None


@dataclass(frozen=True, slots=True)
class Expected:
    """What a request must fit: the model's name, its vectors' size, and the pixels of an image."""

    model_name: str
    vector_size: int
    max_pixels: int


def parse_request(body: bytes, content_type: str, query: str, expected: Expected) -> ImageEmbeddingRequest:
    """Read a request by its Content-Type; anything but a form or an image is read as JSON.

    Raises ``InvalidRequestError`` or ``ModelNotFoundError`` with a sentence that repeats nothing of the body.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return _from_form(body, content_type, expected)
    if kind in MEDIA_TYPES:
        return _from_image(body, query, expected)
    if kind.startswith(("image/", "multipart/")):
        raise InvalidRequestError(
            f"the body's Content-Type is not taken; expected application/json, multipart/form-data, "
            f"{', '.join(MEDIA_TYPES)}"
        )
    request = read_object(body)
    check_model(request, expected.model_name)
    return _request(request, _inputs(request.get("input"), expected), expected)


def _from_form(body: bytes, content_type: str, expected: Expected) -> ImageEmbeddingRequest:
    images: list[Input] = []
    fields: dict[str, Any] = {}
    for part in read_parts(body, content_type):
        if part.name in _IMAGE_FIELDS:
            images.append(_image(part.data, expected))
        elif part.name == "input":
            raise InvalidRequestError(
                "a form takes files only; expected the field image, or a JSON body", param="input"
            )
        elif len(part.data) > _MAX_FIELD_BYTES:
            raise InvalidRequestError(
                f"a field of the form is too long; expected at most {_MAX_FIELD_BYTES} bytes beside the field image"
            )
        else:
            fields[part.name] = part.data.decode("utf-8", "replace")
    check_model(fields, expected.model_name)
    if not images:
        raise InvalidRequestError("the form has no image; expected the field image, once for each", param="image")
    return _request(_numbered(fields), images, expected)


def _from_image(body: bytes, query: str, expected: Expected) -> ImageEmbeddingRequest:
    try:
        fields: dict[str, Any] = dict(parse_qsl(query, max_num_fields=_MAX_QUERY_FIELDS))
    except ValueError:
        raise InvalidRequestError("the URL's query cannot be read; expected for example ?model=NAME") from None
    # whoever sends an image to a worker can mean only the model it serves
    check_model({"model": expected.model_name} | fields, expected.model_name)
    return _request(_numbered(fields), [_image(body, expected)], expected)


def _request(fields: Mapping[str, Any], inputs: list[Input], expected: Expected) -> ImageEmbeddingRequest:
    if len(inputs) > MAX_INPUTS:
        raise InvalidRequestError(
            f"the request holds {len(inputs)} images; expected at most {MAX_INPUTS} in one request", param="input"
        )
    as_base64, dimensions = read_form(fields, expected.vector_size)
    return ImageEmbeddingRequest(tuple(inputs), as_base64, dimensions)


def _numbered(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a form or query with the number among them read; one that is none is left to be refused."""
    given = fields.get("dimensions")
    if isinstance(given, str) and given.isascii() and given.isdigit() and len(given) <= 9:
        return {**fields, "dimensions": int(given)}
    return dict(fields)


def _inputs(given: Any, expected: Expected) -> list[Input]:
    items = given if isinstance(given, list) else [given]
    if not items:
        raise InvalidRequestError(f"input is empty; {_EXPECTED}", param="input")
    if len(items) > MAX_INPUTS:
        raise InvalidRequestError(
            f"input holds {len(items)} items; expected at most {MAX_INPUTS} in one request", param="input"
        )
    return [_item(item, expected) for item in items]


def _item(item: Any, expected: Expected) -> Input:
    if isinstance(item, str):
        if item[:11].lower() == "data:image/":
            raise InvalidRequestError(f"input holds an image as if it were a text; {_EXPECTED}", param="input")
        return check_text(item)
    if not isinstance(item, dict) or set(item) != {"image"} or not isinstance(item["image"], str):
        raise InvalidRequestError(f"input is missing or of a wrong kind; {_EXPECTED}", param="input")
    image = parse_image(item["image"], param="input")
    return image if isinstance(image, ImageUrl) else _image(image, expected)


def _image(data: bytes, expected: Expected) -> EncodedImage:
    if len(data) > MAX_IMAGE_BYTES:
        raise InvalidRequestError(f"an image is too large; expected at most {MAX_IMAGE_BYTES} bytes", param="input")
    return encoded_image(data, max_pixels=expected.max_pixels, param="input")
