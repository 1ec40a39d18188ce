"""One GET to addresses that were checked, by httpcore, imported here: no redirect, no proxy, no second look-up.

Raises httpcore's errors and ``OSError`` where no answer comes, ``RefusedAnswerError`` where it is not an image.
"""

import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

import httpcore

from modelpool_worker.imaging.sources import MEDIA_TYPES, ImageUrl, Origin

#: Opens a connection to an address and port.
Connect = Callable[[str, int], Awaitable[httpcore.AsyncNetworkStream]]
#: Told of so many bytes before they are kept; what it raises ends the reading.
Take = Callable[[int], None]

FAILURES: Final = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError)

_CONNECT_SECONDS: Final = 3.0
#: Addresses of one host that are tried.
_MAX_ADDRESSES: Final = 4
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class RefusedAnswerError(Exception):
    """The server answered, but not with an image that is taken; ``str(error)`` is our sentence."""


async def connect_tcp(address: str, port: int) -> httpcore.AsyncNetworkStream:
    """Open a TCP connection to an IP address."""
    return await httpcore.AnyIOBackend().connect_tcp(address, port, timeout=_CONNECT_SECONDS)


def tls_context() -> ssl.SSLContext:
    """Return what verifies certificates: the system's authorities and certifi's. Takes a moment."""
    return httpcore.default_ssl_context()


async def get(
    url: ImageUrl,
    addresses: Sequence[str],
    *,
    connect: Connect,
    context: ssl.SSLContext | None,
    limit: int,
    take: Take,
) -> bytes:
    """Return the image at ``url``, at most ``limit`` bytes, from one of ``addresses``; https needs a ``context``."""
    origin = url.origin
    asked = httpcore.Origin(origin.scheme.encode(), origin.host.encode(), origin.port)
    backend = _Pinned(addresses[:_MAX_ADDRESSES], connect)
    connection = httpcore.AsyncHTTPConnection(asked, ssl_context=context, network_backend=backend)
    headers = [
        ("Host", _host_header(origin)),
        ("Accept", ", ".join(MEDIA_TYPES)),
        ("Accept-Encoding", "identity"),
        ("User-Agent", "modelpool-worker"),
        ("Connection", "close"),
    ]
    target = httpcore.URL(scheme=asked.scheme, host=asked.host, port=asked.port, target=url.target.encode())
    request = httpcore.Request("GET", target, headers=headers)
    try:
        response = await connection.handle_async_request(request)
        try:
            _check_answer(response.status, response.headers, limit)
            return await _read(response, limit, take)
        finally:
            await response.aclose()
    finally:
        await connection.aclose()


class _Pinned(httpcore.AsyncNetworkBackend):
    """Connects to the addresses it was made with, whatever name it is asked for."""

    def __init__(self, addresses: Sequence[str], connect: Connect) -> None:
        self._addresses = addresses
        self._connect = connect

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 — the interface's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failure: Exception = httpcore.ConnectError("there is no address")
        for address in self._addresses:
            try:
                return await self._connect(address, port)
            except FAILURES as error:
                failure = error
        raise failure


def _check_answer(status: int, headers: Iterable[tuple[bytes, bytes]], limit: int) -> None:
    if 300 <= status < 400:
        raise RefusedAnswerError("the image's URL leads to another one, which is not followed; send the last one")
    if status != 200:
        raise RefusedAnswerError(f"the image's server answered with status {status}; expected 200 and the image")
    fields = {name.lower(): value.strip().lower() for name, value in headers}
    media_type = fields.get(b"content-type", b"").split(b";")[0].strip().decode("latin-1")
    if media_type not in MEDIA_TYPES:
        raise RefusedAnswerError(
            f"the image's server did not say that it is an image; expected Content-Type {' or '.join(MEDIA_TYPES)}"
        )
    if fields.get(b"content-encoding", b"identity") != b"identity":
        raise RefusedAnswerError("the image's server sent it compressed once more; expected the image as it is")
    length = fields.get(b"content-length", b"0")
    if not length.isdigit() or len(length) > 20 or int(length) > limit:
        raise _too_large(limit)


async def _read(response: httpcore.Response, limit: int, take: Take) -> bytes:
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in response.aiter_stream():
            size += len(chunk)
            if size > limit:
                raise _too_large(limit)
            take(len(chunk))
            chunks.append(chunk)
        return b"".join(chunks)
    finally:
        chunks.clear()  # an error remembers this frame, and would keep what has arrived for a while


def _too_large(limit: int) -> RefusedAnswerError:
    return RefusedAnswerError(f"the image at the URL is too large; this request has {limit} bytes left for it")


def _host_header(origin: Origin) -> str:
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    return host if origin.port == _DEFAULT_PORTS[origin.scheme] else f"{host}:{origin.port}"
