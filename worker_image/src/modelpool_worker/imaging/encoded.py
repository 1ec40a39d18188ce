"""An image that is not decoded yet, as it travels from the request to the thread that decodes it."""

from dataclasses import dataclass, field

from modelpool_worker.imaging.headers import check_size, read_header
from modelpool_worker.imaging.pixel_budget import Share


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """A PNG, JPEG or WebP whose header was checked. Its length is the work it makes: pixels, not bytes.

    So few large images, or many small ones, are prepared before another request gets its turn. ``share`` is what
    the images of one request have in common.
    """

    data: bytes
    pixels: int
    max_pixels: int
    share: Share | None = field(default=None, compare=False)

    def __len__(self) -> int:
        return self.pixels


def encoded_image(data: bytes, *, max_pixels: int, param: str) -> EncodedImage:
    """Check an image's header; raise ``InvalidRequestError`` that names ``param`` for one that is not decoded here."""
    header = read_header(data, param=param)
    check_size(header, max_pixels, param)
    return EncodedImage(data, header.width * header.height, max_pixels)
