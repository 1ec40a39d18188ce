"""Where a client's image is: in the request itself, or at a URL. Pure: text in, bytes or a taken-apart URL out.

A URL is taken apart here and nowhere else: what was checked is what is connected to.
"""

import binascii
import ipaddress
import re
from dataclasses import dataclass
from typing import Final, Literal

from modelpool_worker.errors import InvalidRequestError

Scheme = Literal["http", "https"]

#: Bytes of one encoded image, wherever it comes from.
MAX_IMAGE_BYTES: Final = 20 * 1024 * 1024
MAX_URL_CHARS: Final = 2048
MAX_HOSTS: Final = 256
MEDIA_TYPES: Final = ("image/png", "image/jpeg", "image/webp")

_MAX_BASE64_CHARS: Final = (MAX_IMAGE_BYTES + 2) // 3 * 4
_DEFAULT_PORTS: Final[dict[Scheme, int]] = {"http": 80, "https": 443}
_ORIGIN: Final = r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]{2,45}\]|[a-z0-9.-]{1,253})(?::(?P<port>[0-9]{1,5}))?"
_URL: Final = re.compile(_ORIGIN + r"(?P<target>[/?][!-\[\]-~]*)?", re.IGNORECASE)
_HOST: Final = re.compile(r"(?:https?://)?[^/]+", re.IGNORECASE)
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_DATA_URL: Final = re.compile(r"data:(image/(?:png|jpeg|webp));base64,", re.IGNORECASE)
_EXPECTED: Final = (
    'expected a data URL such as "data:image/png;base64,iVBORw0…" (image/png, image/jpeg or image/webp), the base64 '
    "text alone, or an https URL"
)


@dataclass(frozen=True, slots=True)
class Origin:
    """Whom to connect to. ``host`` is a lower-case name without a dot at its end, or a plain IP address."""

    scheme: Scheme
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class ImageUrl:
    """A URL taken apart; ``target`` is path and query as they are sent."""

    origin: Origin
    target: str


def parse_image(text: str, *, param: str) -> bytes | ImageUrl:
    """Return the bytes of a data URL or of bare base64, or the parts of an http or https URL.

    Whether a URL may be fetched is decided where it is. Raises ``InvalidRequestError`` that names ``param``.
    """
    if re.match("https?://", text, re.IGNORECASE):
        return _url(text, param)
    start = 0
    if text[:5].lower() == "data:":
        match = _DATA_URL.match(text)
        if match is None:
            raise InvalidRequestError(f"the image's data URL is wrong; {_EXPECTED}", param=param)
        start = match.end()
    if len(text) - start > _MAX_BASE64_CHARS:
        raise InvalidRequestError(
            f"the image is too large; expected at most {MAX_IMAGE_BYTES} bytes before they become base64", param=param
        )
    try:
        data = binascii.a2b_base64(text[start:], strict_mode=True)
    except ValueError:
        said = f"the image is neither base64 in one line nor a URL; {_EXPECTED}"
        raise InvalidRequestError(said, param=param) from None
    if not data:
        raise InvalidRequestError(f"the image is empty; {_EXPECTED}", param=param)
    return data


def parse_hosts(text: str) -> frozenset[Origin]:
    """Read the setting that lists from where images may be fetched, separated by commas; empty: from nowhere.

    ``images.example`` allows https at its usual port; ``images.example:8443`` another port; ``http://images.example``
    allows http. Raises ``ValueError``.
    """
    origins: set[Origin] = set()
    for entry in filter(None, (entry.strip() for entry in text.split(","))):
        match = _URL.fullmatch(entry if "://" in entry else f"https://{entry}") if _HOST.fullmatch(entry) else None
        origin = _origin(match) if match is not None else None
        if origin is None:
            raise ValueError("an entry is no host; expected for example images.example or http://images.example:8080")
        origins.add(origin)
    if len(origins) > MAX_HOSTS:
        raise ValueError(f"too many hosts; expected at most {MAX_HOSTS}")
    return frozenset(origins)


def _url(text: str, param: str) -> ImageUrl:
    if len(text) > MAX_URL_CHARS:
        raise InvalidRequestError(f"the image's URL is longer than {MAX_URL_CHARS} characters", param=param)
    whole, _, _fragment = text.partition("#")
    match = _URL.fullmatch(whole)
    origin = _origin(match) if match is not None else None
    if match is None or origin is None:
        raise InvalidRequestError(
            "the image's URL is wrong; expected one of plain characters without a user name, such as "
            '"https://images.example/cat.png"',
            param=param,
        )
    target = match["target"] or "/"
    return ImageUrl(origin, target if target.startswith("/") else f"/{target}")


def _origin(match: re.Match[str]) -> Origin | None:
    scheme: Scheme = "http" if match["scheme"].lower() == "http" else "https"
    host = _host(match["host"].lower())
    port = int(match["port"] or _DEFAULT_PORTS[scheme])
    return Origin(scheme, host, port) if host is not None and 1 <= port <= 65_535 else None


def _host(host: str) -> str | None:
    """Return a host in the one form that is compared and connected to; None for what other parsers read differently.

    A name that ends in a number is an address to some (decimal, octal, hexadecimal, shortened) and a name to others.
    """
    try:
        if host.startswith("["):
            return str(ipaddress.IPv6Address(host[1:-1]))
        labels = host.split(".")
        if labels[-1].isdigit() or labels[-1].startswith("0x"):
            return str(ipaddress.IPv4Address(host))
    except ValueError:
        return None
    return host if all(map(_LABEL.fullmatch, labels)) else None
