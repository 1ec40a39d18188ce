"""What an encoded image says of itself, read without decoding a pixel. Pure.

Also refuses here what is small to send and slow to read: parts without number before the picture, scans without number.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from modelpool_worker.errors import InvalidRequestError
from modelpool_worker.imaging.exif import UPRIGHT, orientation_of

Kind = Literal["png", "jpeg", "webp"]

#: How many times longer one side may be than the other: models scale the shorter side up to a fixed length.
MAX_RATIO: Final = 32
#: Segments or chunks beside those of the picture itself: text, colour profiles, previews.
_MAX_PARTS: Final = 1024
#: Chunks of a PNG in all.
_MAX_CHUNKS: Final = 65_536
#: Passes over the whole picture that a progressive JPEG asks for; encoders make about ten.
_MAX_SCANS: Final = 40
#: Bytes of EXIF data that are looked at.
_MAX_EXIF: Final = 65_536
_EXIF: Final = b"Exif\0\0"
_APP1: Final = 0xE1
_APP15: Final = 0xEF
_PNG: Final = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class Header:
    """The kind of an image, its size as it is stored, in pixels, and its EXIF orientation (1: as it is stored)."""

    kind: Kind
    width: int
    height: int
    orientation: int = UPRIGHT


def read_header(data: bytes, *, param: str) -> Header:
    """Read kind and size of a still PNG, JPEG or WebP; raise ``InvalidRequestError`` for anything else."""
    try:
        if data.startswith(_PNG):
            return _png(data, param)
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data, param)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp(data, param)
    except IndexError:
        raise damaged(param) from None
    raise InvalidRequestError("the image is of an unknown kind; expected the bytes of a PNG, JPEG or WebP", param=param)


def check_size(header: Header, max_pixels: int, param: str) -> None:
    """Raise ``InvalidRequestError`` for an image of too many pixels, or with one side many times the other."""
    width, height = header.width, header.height
    if width < 1 or height < 1:
        raise damaged(param)
    if width * height > max_pixels:
        raise InvalidRequestError(
            f"the image has {width} x {height} pixels; expected at most {max_pixels} in all", param=param
        )
    if max(width, height) > MAX_RATIO * min(width, height):
        raise InvalidRequestError(
            f"the image has {width} x {height} pixels; expected no side more than {MAX_RATIO} times the other",
            param=param,
        )


def damaged(param: str) -> InvalidRequestError:
    """Say that an image cannot be decoded."""
    return InvalidRequestError(
        "the image is cut short or damaged; expected a whole PNG, JPEG or WebP as an image program writes it",
        param=param,
    )


def _png(data: bytes, param: str) -> Header:
    others = 0
    orientation = UPRIGHT
    for number, (name, position) in enumerate(_png_chunks(data, param)):
        if number >= _MAX_CHUNKS or others > _MAX_PARTS:
            raise _overloaded(param)
        if name == b"acTL":
            raise _animated(param)
        others += name != b"IDAT"
        if name == b"IEND":
            break
        if (number == 0) != (name == b"IHDR") or position + 8 > len(data):
            raise damaged(param)
        if name == b"eXIf":
            orientation = orientation_of(data[position : position + _MAX_EXIF])
    return Header("png", int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big"), orientation)


def _png_chunks(data: bytes, param: str) -> Iterator[tuple[bytes, int]]:
    """Yield name and position of the content of every chunk."""
    position = len(_PNG)
    while position < len(data):
        yield data[position + 4 : position + 8], position + 8
        position += 12 + int.from_bytes(data[position : position + 4], "big")
    raise damaged(param)  # the last one, IEND, was not there


def _jpeg(data: bytes, param: str) -> Header:
    # inside a scan these two bytes never follow each other
    if data.count(b"\xff\xda") > _MAX_SCANS:
        raise _overloaded(param)
    size: tuple[int, int] | None = None
    orientation = UPRIGHT
    for marker, position, length in _jpeg_segments(data, param):
        # 0xC0 to 0xCF begin a picture, but for the tables 0xC4 and 0xCC and the reserved 0xC8
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if size is not None or length < 8:
                raise damaged(param)
            high, wide = data[position + 3 : position + 5], data[position + 5 : position + 7]
            size = int.from_bytes(wide, "big"), int.from_bytes(high, "big")
        elif marker == _APP1 and data[position + 2 : position + 8] == _EXIF:
            orientation = orientation_of(data[position + 8 : position + length])
    if size is None:
        raise damaged(param)
    return Header("jpeg", *size, orientation)


def _jpeg_segments(data: bytes, param: str) -> Iterator[tuple[int, int, int]]:
    """Yield marker, position and length of every segment before the first scan; the length's two bytes are in both."""
    position = 2
    for _ in range(_MAX_PARTS):
        if data[position] != 0xFF:
            raise damaged(param)
        while data[position] == 0xFF:
            position += 1
        marker = data[position]
        length = int.from_bytes(data[position + 1 : position + 3], "big")
        if marker == 0xDA:
            return
        if marker < 0xC0 or 0xD0 <= marker <= 0xD9 or length < 2:
            raise damaged(param)
        yield marker, position + 1, length
        position += 1 + length
    raise _overloaded(param)


def hide_exif(data: bytes, param: str) -> bytes:
    """Return a JPEG whose EXIF data goes by another name: it was read here, and Pillow warns of what is wrong in it."""
    hidden = bytearray(data)
    for marker, position, _length in _jpeg_segments(data, param):
        if marker == _APP1:
            hidden[position - 1] = _APP15
    return bytes(hidden)


def _webp(data: bytes, param: str) -> Header:
    if len(data) < 30:
        raise damaged(param)
    form = data[12:16]
    if form == b"VP8X":
        if data[20] & 0x02:
            raise _animated(param)
        width, height = 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
        return Header("webp", width, height, _webp_orientation(data) if data[20] & 0x08 else UPRIGHT)
    if form == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = int.from_bytes(data[26:28], "little"), int.from_bytes(data[28:30], "little")
        return Header("webp", width & 0x3FFF, height & 0x3FFF)
    if form == b"VP8L" and data[20] == 0x2F:
        bits = int.from_bytes(data[21:25], "little")
        return Header("webp", 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
    raise damaged(param)


def _webp_orientation(data: bytes) -> int:
    position = 12
    for _ in range(_MAX_PARTS):
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        if data[position : position + 4] == b"EXIF":
            exif = data[position + 8 : position + 8 + min(length, _MAX_EXIF)]
            return orientation_of(exif.removeprefix(_EXIF))
        position += 8 + length + length % 2
    return UPRIGHT


def _animated(param: str) -> InvalidRequestError:
    return InvalidRequestError("the image is animated; expected a single picture, such as its first one", param=param)


def _overloaded(param: str) -> InvalidRequestError:
    return InvalidRequestError(
        "the image file has far more parts than pictures have; save it anew, without previews and extra data",
        param=param,
    )
