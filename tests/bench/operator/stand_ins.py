"""Stand-ins for a thousand worker processes: the worker's own state machine and lifecycle port, without models.

All of them live in one event loop. Each answers at its pod's own address, which is loopback, so whom a request is for
is known by the address that it came to.
"""

import asyncio
import contextlib
import resource
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from modelpool_api import WorkerEvent, WorkerState
from modelpool_api.pod import LIFECYCLE_PORT
from modelpool_worker.machine import Gauges, Machine
from modelpool_worker.web.bearer import BearerToken
from modelpool_worker.web.lifecycle_app import create_app
from modelpool_worker.web.server import create_server, listen

_TICK_SECONDS = 0.5
_IDLE_SECONDS = 3600.0
#: Addresses that kwok gives to the pods of one node, and what the process needs beside them.
_PER_NODE = 254
_SPARE_FILES = 8192


class StandIns:
    """The processes of all pods that run, by the pod's address."""

    def __init__(self) -> None:
        self.machines: dict[str, Machine] = {}
        self._apps: dict[str, ASGIApp] = {}

    def start(self, ip: str, worker_id: str, token_file: Path) -> None:
        """A container starts at this address; its model is loaded at once."""
        machine = Machine(
            worker_id=worker_id, boot_id=uuid.uuid4().hex, idle_timeout=_IDLE_SECONDS, clock=time.monotonic
        )
        token = BearerToken(token_file, time.monotonic)
        if (before := self.machines.get(ip)) is not None:
            before.close()
        self.machines[ip] = machine
        self._apps[ip] = create_app(machine, token, gauges=lambda: Gauges(device="cpu"), wall_clock=lambda: 0.0)
        machine.fire(WorkerEvent.LOADED, "ModelLoaded")

    def end(self, ip: str, worker_id: str) -> None:
        """The worker's pod at this address is gone; another may have the address already."""
        machine = self.machines.get(ip)
        if machine is not None and machine.worker_id == worker_id:
            del self._apps[ip], self.machines[ip]
            machine.close()

    def all(self, do: Callable[[Machine], object]) -> None:
        """Do something in every process that still takes requests."""
        for machine in list(self.machines.values()):
            if machine.state in (WorkerState.READY, WorkerState.IDLE, WorkerState.PROCESSING):
                do(machine)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request at the address that it came to."""
        app = self._apps.get(scope["server"][0])
        if app is None:  # the process has not started yet, or is gone
            await send({"type": "http.response.start", "status": 503, "headers": [(b"connection", b"close")]})
            await send({"type": "http.response.body", "body": b""})
            return
        await app(scope, receive, send)

    async def tick(self) -> None:
        """Have time pass for all of them."""
        while True:
            for machine in list(self.machines.values()):
                machine.tick()
            await asyncio.sleep(_TICK_SECONDS)


@asynccontextmanager
async def serving(nodes: int) -> AsyncIterator[StandIns]:
    """Listen at every address that pods of so many played nodes may have, as long as the context lasts."""
    stand_ins = StandIns()
    _allow_files(nodes * _PER_NODE + _SPARE_FILES)
    server = create_server(stand_ins)
    ticking = asyncio.create_task(stand_ins.tick())
    with _listening(addresses(nodes)) as sockets:
        running = asyncio.create_task(server.serve(sockets=list(sockets)))
        try:
            yield stand_ins
        finally:
            ticking.cancel()
            for machine in stand_ins.machines.values():
                machine.close()
            server.should_exit = server.force_exit = True
            await running


def addresses(nodes: int) -> list[str]:
    """The addresses of `cluster.control_plane.kwok_node`'s pods."""
    return [f"127.{100 + node}.0.{number}" for node in range(nodes) for number in range(1, _PER_NODE + 1)]


@contextlib.contextmanager
def _listening(ips: Iterable[str]) -> Iterator[Sequence[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(listen(ip, LIFECYCLE_PORT))) for ip in ips]


def _allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))
