"""Which way up a picture is, by its EXIF data. Pure; metadata of any program's making, so nothing here ever fails."""

from typing import Final, Literal

UPRIGHT: Final = 1

_ORDERS: Final[dict[bytes, Literal["little", "big"]]] = {b"II*\0": "little", b"MM\0*": "big"}
_ORIENTATION: Final = 0x0112
_SHORT: Final = 3
_MAX_ENTRIES: Final = 512


def orientation_of(exif: bytes) -> int:
    """Return the orientation, 1 to 8, of EXIF data (a TIFF header with its first directory); 1 where it says none."""
    order = _ORDERS.get(exif[:4])
    if order is None:
        return UPRIGHT

    def number(place: int, length: int) -> int:
        return int.from_bytes(exif[place : place + length], order)

    directory = number(4, 4)
    for index in range(min(number(directory, 2), _MAX_ENTRIES)):
        entry = directory + 2 + 12 * index
        if number(entry, 2) == _ORIENTATION:
            value = number(entry + 8, 2)
            plain = number(entry + 2, 2) == _SHORT and number(entry + 4, 4) == 1
            return value if plain and 1 <= value <= 8 else UPRIGHT
    return UPRIGHT
