"""Encoded images → pixels, by Pillow, which is imported here. Blocks: for a thread, never for the event loop.

What an image becomes, whatever it was:
- RGB of 8 bits. Transparent pixels lie on white. 16-bit grey keeps its upper 8 bits; CMYK is converted by the plain
  formula; colour profiles are ignored.
- Upright: an EXIF orientation is applied, as viewers do. One that cannot be read is ignored.
- A still picture: animations are refused; of a JPEG with several pictures it is the first.
"""

from io import BytesIO
from typing import Final

from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from modelpool_worker.imaging.headers import Header, Kind, check_size, damaged, hide_exif, read_header

_CLASSES: Final[dict[Kind, type[ImageFile]]] = {"png": PngImageFile, "jpeg": JpegImageFile, "webp": WebPImageFile}
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_image(data: bytes, *, max_pixels: int, param: str = "image") -> Image.Image:
    """Decode a PNG, JPEG or WebP into upright RGB; its size is checked before its pixels are made.

    Raises ``InvalidRequestError`` that names ``param``.
    """
    header = read_header(data, param=param)
    check_size(header, max_pixels, param)
    try:
        pixels = _decode(hide_exif(data, param) if header.kind == "jpeg" else data, header)
    except Exception as error:  # decoders raise errors of many kinds; all of them mean a broken file
        raise damaged(param) from error
    if pixels is None:
        raise damaged(param)
    return pixels


def _decode(data: bytes, header: Header) -> Image.Image | None:
    """Return the pixels; None where the file holds another picture than its header said."""
    # the class itself, not Image.open: nothing is tried that the first bytes do not say
    with _CLASSES[header.kind](BytesIO(data)) as image:
        if image.size != (header.width, header.height) or getattr(image, "n_frames", 1) != 1:
            return None
        image.load()
        pixels = _rgb(image)
    turn = _UPRIGHT.get(header.orientation)
    return pixels if turn is None else pixels.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # converting alone would cut every value above 255 to 255
        image = image.point(lambda value: value * (1 / 256)).convert("L")
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        # also a copy: the file's own object goes
        return image.convert("RGB")
    image = image.convert("RGBA")
    on_white = Image.new("RGB", image.size, "white")
    on_white.paste(image, mask=image.getchannel("A"))
    return on_white
