"""A host of images on loopback, by a name and an address that only a fetcher of the test's own finds."""

import asyncio
from contextlib import asynccontextmanager

import httpcore

from modelpool_worker.imaging.addresses import parse_networks
from modelpool_worker.imaging.fetch import ImageFetcher
from modelpool_worker.imaging.sources import parse_hosts

PICTURE = b"picture" * 100
PUBLIC = "93.184.215.14"


def answer(body=PICTURE, *, status="200 OK", **changes):
    """Return an answer's bytes; a header of None is left out."""
    headers = {"Content-Type": "image/png", "Content-Length": str(len(body))}
    headers |= {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode() + body


async def plainly(writer, *, given):
    writer.write(given)
    await writer.drain()


class Net:
    """A name server and a network in which every address leads to the test's server; both keep what they were asked."""

    def __init__(self, port, addresses):
        self.port = port
        self.addresses = list(addresses)
        self.asked = []
        self.connected = []
        self.dead = set()

    async def resolve(self, host, port):
        self.asked.append((host, port))
        return self.addresses

    async def connect(self, address, port):
        self.connected.append((address, port))
        if address in self.dead:
            raise httpcore.ConnectError
        return await httpcore.AnyIOBackend().connect_tcp("127.0.0.1", self.port)


@asynccontextmanager
async def network(speak, addresses=(PUBLIC,), context=None):
    """Yield a Net whose server takes a request, keeps it in ``net.requests`` and speaks."""
    requests, gone = [], []

    async def serve(reader, writer):
        try:
            requests.append(await reader.readuntil(b"\r\n\r\n"))
            await speak(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            gone.append(1)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        net = Net(server.sockets[0].getsockname()[1], addresses)
        net.requests = requests
        yield net


def fetcher(net, hosts="http://images.example", refused="", **more):
    return ImageFetcher(parse_hosts(hosts), parse_networks(refused), resolve=net.resolve, connect=net.connect, **more)
