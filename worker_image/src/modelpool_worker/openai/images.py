"""The image endpoint's request and answer, in OpenAI's shape. Pure: bytes in, bytes out."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

import orjson

from modelpool_worker.errors import InvalidRequestError
from modelpool_worker.openai.body import check_model, read_object

Format = Literal["png", "jpeg", "webp"]

MAX_IMAGES: Final = 8
MAX_PROMPT_CHARS: Final = 4_000
MIN_SIDE: Final = 64
MAX_SIDE: Final = 2_048
#: Of all images of a request together: eight of 1024x1024.
MAX_PIXELS: Final = 8 * 1024 * 1024
MAX_STEPS: Final = 150
MAX_GUIDANCE: Final = 50.0
#: Image i of a request has the seed + i; all of them fit into 63 bits.
MAX_SEED: Final = 2**63 - 1 - MAX_IMAGES

_FORMATS: Final = ("png", "jpeg", "webp")
_SIZE: Final = re.compile(r"(?P<width>[1-9][0-9]{0,4})x(?P<height>[1-9][0-9]{0,4})", re.ASCII)
#: Choices that other services offer and a diffusion model has not: those that change nothing here are let pass.
_WITHOUT_EFFECT: Final[Mapping[str, tuple[str | None, ...]]] = {
    "quality": (None, "auto", "standard"),
    "style": (None,),
    "background": (None, "auto", "opaque"),
    "moderation": (None, "auto", "low"),
}
_INSTEAD: Final[Mapping[str, str]] = {
    "quality": "more num_inference_steps give a better image",
    "style": "say the style in the prompt",
    "background": "images are always opaque",
    "moderation": 'expected "auto" or "low"',
}


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """One image to be drawn. ``size`` is (width, height) in pixels; None, there and below: the model's own."""

    prompt: str
    seed: int
    size: tuple[int, int] | None = None
    steps: int | None = None
    guidance: float | None = None
    negative_prompt: str | None = None


@dataclass(frozen=True, slots=True)
class ImagesRequest:
    """A checked request: 1 to 8 images that differ in their seed. ``quality`` of 0–100 is for jpeg and webp."""

    images: tuple[ImageRequest, ...]
    format: Format
    quality: int

    @property
    def media_type(self) -> str:
        """The media type of one image, such as ``image/png``."""
        return f"image/{self.format}"


def parse_request(body: bytes, *, model_name: str, any_seed: int) -> ImagesRequest:
    """Read and check a request body; fields that are not known are ignored. ``any_seed`` is for who names none.

    Raises ``InvalidRequestError`` or ``ModelNotFoundError`` with a sentence that repeats nothing of the body.
    """
    request = read_object(body)
    check_model(request, model_name)
    prompt = _text(request, "prompt")
    if not prompt:
        raise InvalidRequestError('prompt is missing; expected "prompt": "a cat on a bridge"', param="prompt")
    _refuse_what_is_not_offered(request)
    size = _size(request.get("size"))
    number = _whole(request, "n", 1, MAX_IMAGES) or 1
    if size is not None:
        check_pixels(number, *size)
    seed = _whole(request, "seed", 0, MAX_SEED)
    steps = _whole(request, "num_inference_steps", 1, MAX_STEPS)
    guidance, negative = _guidance(request.get("guidance_scale")), _text(request, "negative_prompt") or None
    first = any_seed if seed is None else seed
    images = tuple(ImageRequest(prompt, first + i, size, steps, guidance, negative) for i in range(number))
    quality = _whole(request, "output_compression", 0, 100)
    return ImagesRequest(images, _format(request.get("output_format")), 100 if quality is None else quality)


def encode_answer(request: ImagesRequest, pictures: Sequence[bytes], *, size: tuple[int, int], created: int) -> bytes:
    """Return the answer's JSON: one encoded picture per image, in order, each with its seed.

    Takes a while for large ones; call it off the event loop. ``created`` is in seconds since 1970.
    """
    data = [
        {"b64_json": base64.b64encode(picture).decode("ascii"), "seed": image.seed}
        for picture, image in zip(pictures, request.images, strict=True)
    ]
    shown = f"{size[0]}x{size[1]}"
    return orjson.dumps({"created": created, "data": data, "output_format": request.format, "size": shown})


def check_pixels(number: int, width: int, height: int) -> None:
    """Raise ``InvalidRequestError`` where so many images of this size are too much for one request."""
    if number * width * height > MAX_PIXELS:
        raise InvalidRequestError(
            f"n × size is {number * width * height} pixels; expected at most {MAX_PIXELS} in one request, for example "
            "n of 8 at 1024x1024",
            param="n" if number > 1 else "size",
        )


def _refuse_what_is_not_offered(request: Mapping[str, Any]) -> None:
    if request.get("response_format") not in (None, "b64_json"):
        raise InvalidRequestError(
            'response_format is not served: no images are kept here for a url; expected "b64_json"',
            param="response_format",
        )
    for name in ("stream", "partial_images"):
        # 0 and false say what is done anyway
        if request.get(name) not in (None, False):
            raise InvalidRequestError(f"{name} is not served: images come whole; leave it out", param=name)
    for name, accepted in _WITHOUT_EFFECT.items():
        if request.get(name) not in accepted:
            raise InvalidRequestError(f"{name} has no such choice here; {_INSTEAD[name]}", param=name)


def _text(request: Mapping[str, Any], name: str) -> str:
    text = request.get(name)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise InvalidRequestError(f'{name} is not a string; expected "{name}": "a cat on a bridge"', param=name)
    if len(text) > MAX_PROMPT_CHARS:
        raise InvalidRequestError(f"{name} has {len(text)} characters; expected at most {MAX_PROMPT_CHARS}", param=name)
    return text


def _size(size: Any) -> tuple[int, int] | None:
    if size is None or size == "auto":
        return None
    match = _SIZE.fullmatch(size) if isinstance(size, str) else None
    sides = (int(match["width"]), int(match["height"])) if match else (0, 0)
    if not all(MIN_SIDE <= side <= MAX_SIDE for side in sides):
        raise InvalidRequestError(
            f'size is wrong; expected "auto" or width and height of {MIN_SIDE} to {MAX_SIDE} such as "512x512"',
            param="size",
        )
    return sides


def _whole(request: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    number = request.get(name)
    if number is None:
        return None
    if type(number) is not int or not least <= number <= most:
        raise InvalidRequestError(f"{name} is wrong; expected a whole number from {least} to {most}", param=name)
    return number


def _guidance(guidance: Any) -> float | None:
    if guidance is None:
        return None
    if type(guidance) not in (int, float) or not 0 <= guidance <= MAX_GUIDANCE:
        raise InvalidRequestError(
            f"guidance_scale is wrong; expected a number from 0 to {MAX_GUIDANCE:g}, for example 7.5",
            param="guidance_scale",
        )
    return float(guidance)


def _format(name: Any) -> Format:
    if name is None:
        return "png"
    if name not in _FORMATS:
        raise InvalidRequestError('output_format is not known; expected "png", "jpeg" or "webp"', param="output_format")
    return cast("Format", name)
