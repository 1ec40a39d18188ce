"""Forms as browsers and curl upload them (``multipart/form-data``). Pure: a whole, bounded body in, its parts out."""

from dataclasses import dataclass, field
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from modelpool_worker.errors import InvalidRequestError

MAX_PARTS: Final = 80
MAX_NAME: Final = 64

_PIECE: Final = 65_536
_EXPECTED: Final = "expected multipart/form-data as curl sends it: curl -F model=NAME -F image=@cat.png"


@dataclass(slots=True)
class Part:
    """One field of a form."""

    name: str = ""
    data: bytes = b""


@dataclass(slots=True)
class _Reading:
    """What has been read of the form."""

    parts: list[Part] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    header: tuple[bytearray, bytearray] = field(default_factory=lambda: (bytearray(), bytearray()))
    ended: bool = False

    def begin(self) -> None:
        if len(self.parts) >= MAX_PARTS:
            raise InvalidRequestError(f"the form has too many fields; expected at most {MAX_PARTS}")
        self.parts.append(Part())
        self.chunks = []

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self.header[0].extend(data[start:end])

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self.header[1].extend(data[start:end])

    def header_end(self) -> None:
        name, value = (bytes(each) for each in self.header)
        self.header = (bytearray(), bytearray())
        if name.lower() == b"content-disposition":
            kind, options = parse_options_header(value)
            given = options.get(b"name", b"")
            if kind == b"form-data" and len(given) <= MAX_NAME:
                self.parts[-1].name = given.decode("utf-8", "replace")
        elif name.lower() == b"content-transfer-encoding" and value.lower() not in (b"binary", b"8bit", b"7bit"):
            raise InvalidRequestError(f"a field of the form is encoded; {_EXPECTED}")

    def headers_end(self) -> None:
        if not self.parts[-1].name:
            raise InvalidRequestError(f"a field of the form has no name or a very long one; {_EXPECTED}")

    def content(self, data: bytes, start: int, end: int) -> None:
        self.chunks.append(data[start:end])

    def part_end(self) -> None:
        self.parts[-1].data = b"".join(self.chunks)

    def end(self) -> None:
        self.ended = True


def read_parts(body: bytes, content_type: str) -> list[Part]:
    """Return the form's fields in order; raise ``InvalidRequestError`` for what is no whole form."""
    _kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise InvalidRequestError(f"the form's Content-Type names no boundary; {_EXPECTED}")
    reading = _Reading()
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": reading.begin,
                "on_header_field": reading.header_name,
                "on_header_value": reading.header_value,
                "on_header_end": reading.header_end,
                "on_headers_finished": reading.headers_end,
                "on_part_data": reading.content,
                "on_part_end": reading.part_end,
                "on_end": reading.end,
            },
        )
        # piece by piece: the parser holds the interpreter's lock while it looks for a boundary in one
        for start in range(0, len(body), _PIECE):
            parser.write(body[start : start + _PIECE])
    except FormParserError:
        raise InvalidRequestError(f"the form cannot be read; {_EXPECTED}") from None
    if not reading.ended:
        raise InvalidRequestError(f"the form is cut short; {_EXPECTED}")
    return reading.parts
