"""A proxy in front of the API server that can end an operator right after one of its writes has been applied."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import yaml
from aiohttp import web

from cluster.control_plane import ControlPlane
from cluster.host import free_ports

#: Not part of a worker's life: they come and go with time.
UNCOUNTED = ("/leases", "/events")
HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host", "content-encoding"})


class Proxy:
    """Plain HTTP in, the administrator's certificate out. Counts the writes that the API server has taken."""

    def __init__(self, cluster: ControlPlane, folder: Path) -> None:
        self._cluster = cluster
        (self.port,) = free_ports(1)
        self.writes: list[str] = []
        self._after, self._strike = 0, lambda: None
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

    def strike_after(self, writes: int, strike: Callable[[], None]) -> None:
        """Call ``strike`` when so many writes from now have been applied, before the last one's answer is passed on."""
        self._after, self._strike = len(self.writes) + writes, strike

    async def handle(self, request: web.Request, upstream: aiohttp.ClientSession) -> web.StreamResponse:
        body = await request.read()
        headers = {key: value for key, value in request.headers.items() if key.lower() not in HOP}
        headers.pop("Authorization", None)
        async with upstream.request(request.method, request.raw_path, data=body or None, headers=headers) as answer:
            write = request.method not in ("GET", "HEAD") and not any(part in request.path for part in UNCOUNTED)
            if write and answer.status < 400:
                self.writes.append(f"{request.method} {request.path}")
                if len(self.writes) == self._after:
                    self._strike()
            passed = {key: value for key, value in answer.headers.items() if key.lower() not in HOP}
            response = web.StreamResponse(status=answer.status, headers=passed)
            with contextlib.suppress(ConnectionResetError):  # whoever asked has been killed
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
            return response

    async def serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
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
