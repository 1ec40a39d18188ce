"""A proxy in front of the API server: it can strike right after a write has been applied, and spoil answers."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
import yaml
from aiohttp import web

from cluster.control_plane import ControlPlane
from cluster.host import free_ports

#: Not part of a worker's life: they come and go with time.
UNCOUNTED = ("/leases", "/events")
HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host", "content-encoding"})
#: Has the API server take the request, now or never, and yields its answer.
Forward = Callable[[], AbstractAsyncContextManager[aiohttp.ClientResponse]]
#: Answers in the proxy's stead.
Fault = Callable[[web.Request, Forward], Awaitable[web.StreamResponse]]


def is_work(request: web.Request) -> bool:
    """Whether it is a write that a worker's life consists of."""
    return request.method not in ("GET", "HEAD") and not any(part in request.path for part in UNCOUNTED)


async def begun(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    """Pass on status and headers of an answer; its body is to follow."""
    passed = {key: value for key, value in answer.headers.items() if key.lower() not in HOP}
    response = web.StreamResponse(status=answer.status, headers=passed)
    await response.prepare(request)
    return response


async def passed_on(request: web.Request, forward: Forward) -> web.StreamResponse:
    """What happens to a request that nothing is done to."""
    async with forward() as answer:
        response = web.StreamResponse()
        with contextlib.suppress(ConnectionResetError):  # whoever asked has been killed
            response = await begun(request, answer)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
        return response


class Proxy:
    """Plain HTTP in, the administrator's certificate out. Counts the writes that the API server has taken."""

    def __init__(self, cluster: ControlPlane, folder: Path) -> None:
        self._cluster = cluster
        (self.port,) = free_ports(1)
        self.writes: list[str] = []
        self._after, self._where, self._strike = 0, "", lambda: None
        self._open: set[asyncio.Transport] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        #: what is done to a request instead of passing it on; asked about each, in the proxy's thread
        self.fault_of: Callable[[web.Request], Fault | None] = lambda _: None
        self.kubeconfig = folder / "proxied.kubeconfig"
        context = {"name": "proxied", "context": {"cluster": "proxied", "user": "proxied"}}
        self.kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "proxied",
                    "clusters": [{"name": "proxied", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
                    "users": [{"name": "proxied", "user": {"token": "the proxy has its own"}}],
                    "contexts": [context],
                }
            )
        )

    def strike_after(self, writes: int, strike: Callable[[], None], where: str = "") -> None:
        """Call ``strike`` when so many writes from now have been applied, before the last one's answer is passed on.

        Only writes to paths that contain ``where`` count.
        """
        self._where, self._strike = where, strike
        self._after = len(self.applied(where)) + writes

    def applied(self, where: str = "") -> list[str]:
        """The writes to such paths that the API server has taken."""
        return [each for each in self.writes if where in each]

    def hang_up(self) -> None:
        """End all connections, in the middle of what they say."""

        def abort() -> None:
            for transport in list(self._open):
                transport.abort()

        assert self._loop is not None
        self._loop.call_soon_threadsafe(abort)

    async def handle(self, request: web.Request, upstream: aiohttp.ClientSession) -> web.StreamResponse:
        body = await request.read()
        headers = {key: value for key, value in request.headers.items() if key.lower() not in HOP}
        headers.pop("Authorization", None)

        @asynccontextmanager
        async def forward() -> AsyncIterator[aiohttp.ClientResponse]:
            async with upstream.request(request.method, request.raw_path, data=body or None, headers=headers) as answer:
                if is_work(request) and answer.status < 400:
                    self.writes.append(f"{request.method} {request.path}")
                    if self._where in request.path and len(self.applied(self._where)) == self._after:
                        self._strike()
                yield answer

        transport = request.transport
        assert transport is not None
        self._open.add(transport)
        try:
            return await (self.fault_of(request) or passed_on)(request, forward)
        finally:
            self._open.discard(transport)

    async def serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        self._loop = asyncio.get_running_loop()
        pki = self._cluster.ca.parent
        context = ssl.create_default_context(cafile=str(self._cluster.ca))
        context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        connector = aiohttp.TCPConnector(ssl=context, limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(
            self._cluster.url, connector=connector, timeout=timeout, auto_decompress=False
        ) as upstream:

            async def handler(request: web.BaseRequest) -> web.StreamResponse:
                assert isinstance(request, web.Request)
                return await self.handle(request, upstream)

            app = web.Application(client_max_size=16 * 2**20)
            app.router.add_route("*", "/{path:.*}", handler)
            # a watch ends with whoever asked for it
            runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", self.port).start()
            ready.set()
            await stop.wait()
            await runner.cleanup()
        await asyncio.sleep(0.2)  # connections over TLS need some turns of the loop to close


@contextmanager
def running_proxy(cluster: ControlPlane, folder: Path) -> Iterator[Proxy]:
    """Serve in a thread of its own as long as the context lasts."""
    proxy, ready = Proxy(cluster, folder), threading.Event()
    started: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def main() -> None:
        started.append((asyncio.get_running_loop(), stop := asyncio.Event()))
        await proxy.serve(ready, stop)

    thread = threading.Thread(target=asyncio.run, args=(main(),), name="proxy")
    thread.start()
    assert ready.wait(30), "the proxy listens"
    try:
        yield proxy
    finally:
        loop, stop = started[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
