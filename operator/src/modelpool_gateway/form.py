"""One field of a form as browsers and curl upload it (``multipart/form-data``): a whole, bounded body in."""

from dataclasses import dataclass, field
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

_MAX_PARTS: Final = 80
_MAX_NAME_BYTES: Final = 64
_MAX_FIELD_BYTES: Final = 1024
_PIECE: Final = 65_536
_EXPECTED: Final = "expected multipart/form-data as curl sends it: curl -F model=NAME -F image=@cat.png"


class FormError(ValueError):
    """The body is no such form; the message is ours and may be shown."""


@dataclass(slots=True)
class _Reading:
    """What has been read of the form; only the part that is meant is kept."""

    meant: bytes
    found: bytes | None = None
    parts: int = 0
    ended: bool = False
    _header: tuple[bytearray, bytearray] = field(default_factory=lambda: (bytearray(), bytearray()))
    _content: bytearray | None = None

    def begin(self) -> None:
        self.parts += 1
        if self.parts > _MAX_PARTS:
            raise FormError(f"the form has more than {_MAX_PARTS} fields")
        self._content = None

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def header_end(self) -> None:
        name, value = (bytes(each) for each in self._header)
        self._header = (bytearray(), bytearray())
        if name.lower() == b"content-disposition":
            kind, options = parse_options_header(value)
            given = options.get(b"name", b"")
            if kind == b"form-data" and len(given) <= _MAX_NAME_BYTES and given == self.meant:
                self._content = bytearray()

    def content(self, data: bytes, start: int, end: int) -> None:
        if self._content is None:
            return
        self._content += data[start:end]
        if len(self._content) > _MAX_FIELD_BYTES:
            raise FormError(f"a field of the form is longer than {_MAX_FIELD_BYTES} bytes")

    def part_end(self) -> None:
        if self._content is not None:
            self.found = bytes(self._content)  # the last of several counts, as with the worker

    def end(self) -> None:
        self.ended = True


def read_field(body: bytes, content_type: str, name: str) -> str | None:
    """Return the text of a short field, None where the form has none. Raises `FormError`."""
    _kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise FormError(f"the form's Content-Type names no boundary; {_EXPECTED}")
    reading = _Reading(name.encode())
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": reading.begin,
                "on_header_field": reading.header_name,
                "on_header_value": reading.header_value,
                "on_header_end": reading.header_end,
                "on_part_data": reading.content,
                "on_part_end": reading.part_end,
                "on_end": reading.end,
            },
        )
        # piece by piece: the parser holds the interpreter's lock while it looks for a boundary in one
        for start in range(0, len(body), _PIECE):
            parser.write(body[start : start + _PIECE])
    except FormParserError:
        raise FormError(f"the form cannot be read; {_EXPECTED}") from None
    if not reading.ended:
        raise FormError(f"the form is cut short; {_EXPECTED}")
    return None if reading.found is None else reading.found.decode("utf-8", "replace")
