"""Images at URLs: whether one may be fetched, from which addresses, within which bounds.

Nothing is fetched unless hosts are listed. A name is looked up once; every address it has must be public, and one of
those very addresses is connected to, so a name that changes its address in between gains nothing.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from modelpool_worker.errors import InvalidRequestError
from modelpool_worker.imaging.addresses import Network, is_public
from modelpool_worker.imaging.sources import MAX_IMAGE_BYTES, ImageUrl, Origin

if TYPE_CHECKING:
    from modelpool_worker.imaging.transport import Connect, Take

#: Returns the addresses of a name.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

#: URLs of one request; they are fetched one after the other.
MAX_URLS: Final = 16

_SECONDS: Final = 10.0
_AT_ONCE: Final = 8
_INSTEAD: Final = "send the image itself as a data URL or base64"


class ImageFetcher:
    """Fetches images for requests. Used on the event loop's thread only."""

    def __init__(
        self,
        hosts: Collection[Origin],
        refused: Collection[Network] = (),
        *,
        max_bytes: int = MAX_IMAGE_BYTES,
        seconds: float = _SECONDS,
        resolve: Resolve | None = None,
        connect: "Connect | None" = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """``max_bytes`` bounds all images of a request together, ``seconds`` one image."""
        self._hosts = frozenset(hosts)
        self._refused = tuple(refused)
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._resolve = resolve or _Resolver()
        if self._hosts:
            # imported by those workers only that fetch, and before anybody waits for it
            from modelpool_worker.imaging import transport

            self._transport = transport
            self._connect = connect or transport.connect_tcp
            if context is None and any(host.scheme == "https" for host in self._hosts):
                context = transport.tls_context()
            self._context = context

    async def fetch_all(self, urls: Sequence[ImageUrl], *, param: str, take: "Take") -> dict[ImageUrl, bytes]:
        """Return the images of a request by their URLs. Raises ``InvalidRequestError`` for one that cannot be had.

        ``take`` is told of the bytes as they arrive, each time before they are kept; what it raises ends the fetching.
        """
        urls = list(dict.fromkeys(urls))
        if len(urls) > MAX_URLS:
            raise InvalidRequestError(
                f"the request has images at {len(urls)} URLs; expected at most {MAX_URLS}, or {_INSTEAD}", param=param
            )
        fetched: dict[ImageUrl, bytes] = {}
        left = self._max_bytes
        for url in urls:
            fetched[url] = await self.fetch(url, param=param, take=take, limit=left)
            left -= len(fetched[url])
        return fetched

    async def fetch(self, url: ImageUrl, *, param: str, take: "Take", limit: int | None = None) -> bytes:
        """Return the image at ``url``, at most ``limit`` bytes (None: the fetcher's own limit)."""
        if not self._hosts:
            raise InvalidRequestError(f"images are not fetched from URLs here; {_INSTEAD}", param=param)
        if url.origin not in self._hosts:
            raise InvalidRequestError(
                f"the image's URL is at a host that nothing is fetched from here; {_INSTEAD}", param=param
            )
        async with self._slots:
            try:
                async with asyncio.timeout(self._seconds):
                    addresses = await self._addresses(url.origin, param)
                    return await self._transport.get(
                        url,
                        addresses,
                        connect=self._connect,
                        context=self._context,
                        limit=self._max_bytes if limit is None else limit,
                        take=take,
                    )
            except self._transport.RefusedAnswerError as error:
                raise InvalidRequestError(str(error), param=param) from None
            except self._transport.FAILURES as error:
                raise InvalidRequestError(
                    f"the image's URL gave no whole answer within {self._seconds:g} s; try it yourself, or {_INSTEAD}",
                    param=param,
                ) from error

    async def _addresses(self, origin: Origin, param: str) -> Sequence[str]:
        plain = ":" in origin.host or origin.host.rpartition(".")[2].isdigit()
        addresses = [origin.host] if plain else await self._resolve(origin.host, origin.port)
        # all of them: a name with a public and a private address is no mistake that should be guessed at
        if not all(is_public(address, self._refused) for address in addresses):
            raise InvalidRequestError(
                f"the image's URL is at an address that nothing is fetched from; expected a public one, or {_INSTEAD}",
                param=param,
            )
        return addresses


class _Resolver:
    """Looks names up in threads of its own: a name server that does not answer holds nobody else up."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_AT_ONCE, "resolve")

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))
