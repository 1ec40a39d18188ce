"""Heads of requests and of answers: what is read of them and what is passed on. Pure."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from modelpool_api.inference import HEADER_WORKER
from modelpool_gateway.errors import GatewayError

Header = tuple[bytes, bytes]

#: Which worker has answered, which is for the gateway to know.
WORKER: Final = HEADER_WORKER.lower().encode()
#: Of one connection only (RFC 9110, 7.6.1).
_HOP: Final = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization"),
        *(b"te", b"trailer", b"transfer-encoding", b"upgrade"),
    )
)
#: Set anew by whoever sends, or the client's secret, which is the gateway's alone to read.
_OWN: Final = frozenset(
    (
        *(b"host", b"content-length", b"expect", b"content-encoding"),
        *(b"authorization", b"cookie", b"api-key", b"x-api-key"),
    )
)
_TO_WORKER: Final = _HOP | _OWN
_NOT_FOR_CLIENTS: Final = _HOP | {WORKER}
#: Ours: a client that sets it asks the gateway for something, and a worker tells the gateway something.
_MARK: Final = b"x-modelpool-"
#: A client that sets it to ``true`` and streams is told by comments what it waits for.
PROGRESS: Final = b"x-modelpool-progress"
#: What a Connection header usually says, which names nothing.
_ONLY_OWN_WORDS: Final = frozenset({b"keep-alive", b"close"})
_QUERY: Final = re.compile(rb"[!-~]*")


@dataclass(slots=True)
class Head:
    """What a request's head says. ``length`` is None for a body in chunks; ``lines`` are the headers to pass on."""

    content_type: str = ""
    length: bytes | None = None
    authorization: str = ""
    progress: bool = False
    lines: bytes = b""


def read_head(headers: Iterable[Header]) -> Head:
    """Read the head of a request with a body; names are in lower case.

    Raises `GatewayError`: 411 where the length of the body is not told, 415 where it is compressed, 400 where its type
    is told twice: the worker might go by the other one.
    """
    head = Head()
    kept: list[bytes] = []
    chunked, typed, hop = False, False, b""
    for name, value in headers:
        if name not in _TO_WORKER:
            if not name.startswith(_MARK):
                kept += (name, b": ", value, b"\r\n")
            elif name == PROGRESS:
                head.progress = value.strip().lower() == b"true"
            if name == b"content-type":
                if typed:
                    raise GatewayError(400, "invalid_request", "expected one Content-Type")
                typed, head.content_type = True, value.decode("latin-1")
        elif name == b"content-length":
            head.length = value
        elif name == b"authorization":
            head.authorization = value.decode("latin-1")
        elif name == b"connection":
            hop += b"," + value
        elif name == b"transfer-encoding":
            chunked = value.strip().lower() == b"chunked"
        elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise GatewayError(415, "compressed_body", "compressed bodies are not taken; send plain JSON")
    if head.length is None and not chunked:
        raise GatewayError(411, "length_required", "expected a body, with Content-Length or in chunks")
    named = _named(hop)
    if named:
        kept = [part for at in range(0, len(kept), 4) if kept[at] not in named for part in kept[at : at + 4]]
    head.lines = b"".join(kept)
    return head


def request_head(path: str, query: bytes, endpoint: str, length: int, token: str | None, lines: bytes) -> bytes:
    """Return the head of the request to a worker at ``http://host:port``; ``lines`` are the client's headers."""
    target = f"{path}?{query.decode('ascii')}" if query else path
    secret = f"authorization: Bearer {token}\r\n" if token else ""
    host = endpoint.removeprefix("http://")
    own = f"POST {target} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n{secret}"
    return b"%s%s\r\n" % (own.encode("ascii"), lines)


def check_query(query: bytes) -> bytes:
    """Return a URL's query that may stand in a request's head. Raises `GatewayError`."""
    if query and not _QUERY.fullmatch(query):
        raise GatewayError(400, "invalid_request", "the URL's query holds more than printable ASCII")
    return query


def answer_headers(headers: Sequence[Header]) -> list[Header]:
    """Return what of a worker's headers the client gets; names are in lower case."""
    kept = [header for header in headers if header[0] not in _NOT_FOR_CLIENTS]
    hop = [value for name, value in headers if name == b"connection"]
    if not hop:
        return kept
    named = _named(b",".join(hop))
    return [header for header in kept if header[0] not in named] if named else kept


def find(headers: Iterable[Header], name: bytes) -> bytes:
    """Return a header's value, b"" where there is none."""
    return next((value for each, value in headers if each == name), b"")


def _named(connection: bytes) -> frozenset[bytes]:
    """Return what the Connection header names besides its own words."""
    if not connection or connection.lower() in _ONLY_OWN_WORDS:
        return frozenset()
    words = {word.strip().lower() for word in connection.split(b",")}
    return frozenset(words - {b"", b"close", b"keep-alive"})
