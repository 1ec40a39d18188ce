"""The gateway as a whole: what its parts are wired to, and how it begins and ends."""

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, Final

import structlog

from modelpool_gateway.admin import Admin
from modelpool_gateway.bodies import Bodies, BodyBounds
from modelpool_gateway.demand import Demand
from modelpool_gateway.directory import Directory, Key
from modelpool_gateway.holding import HoldBounds, Holding
from modelpool_gateway.keys import ApiKeys
from modelpool_gateway.listing import Listing
from modelpool_gateway.metrics import GatewayMetrics, StateCollector
from modelpool_gateway.models import Models
from modelpool_gateway.pool import Pool
from modelpool_gateway.proxy import Proxy
from modelpool_gateway.relay import Relay
from modelpool_gateway.server import Server, create_server
from modelpool_gateway.settings import GatewaySettings
from modelpool_gateway.tokens import PoolTokens
from modelpool_gateway.waiting_room import Bounds, WaitingRoom
from modelpool_gateway.watch import feed_of_models, feed_of_workers
from modelpool_operator.kube.client import KubeClient

_log = structlog.get_logger(__name__)
_SWEEP_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.05
#: For the second port to end, which nobody waits for.
_ADMIN_SECONDS: Final = 1.0


class Gateway:
    """Serves the models of one namespace until it is told to stop."""

    def __init__(self, settings: GatewaySettings, client: KubeClient, metrics: GatewayMetrics) -> None:
        self._settings = settings
        namespace, now = settings.namespace, client.clock.now
        self._directory, models = Directory(settings.worker_in_flight), Models()
        room: WaitingRoom[Key] = WaitingRoom(Bounds(settings.max_held_per_model, settings.max_held))
        bodies = Bodies(BodyBounds(settings.max_body_bytes, settings.max_bodies_bytes, settings.body_seconds))
        self._pool = Pool(patience=settings.answer_seconds)
        self._demand = Demand(client, namespace, settings.pod_name, models, lambda: holding.wanted())
        bounds = HoldBounds(settings.hold_seconds, settings.progress_seconds)
        holding = Holding(self._directory, models, room, self._demand, now, bounds, metrics.held)
        tokens = PoolTokens(Path(settings.tokens_folder)) if settings.tokens_folder else None
        token_of: Callable[[str], str | None] = tokens.of if tokens else lambda _pool: None
        relay = Relay(self._pool, token_of, settings.client_seconds, holding.closed_again, holding.turned_away)
        keys = ApiKeys(Path(settings.keys_folder)) if settings.keys_folder else None
        listing = Listing(namespace, self._directory, models, now)
        self._proxy = Proxy(namespace, models, holding, relay, bodies, listing, self._demand, metrics, keys)
        self._feeds = (
            feed_of_workers(client, namespace, self._directory, holding.changed),
            feed_of_models(client, namespace, models, holding.changed),
        )
        metrics.registry.register(StateCollector(self._directory, room, bodies))
        self._admin = Admin(self._alive, self._ready, metrics.registry)
        self._serving = False
        self._tasks: list[asyncio.Task[Any]] = []

    async def run(self, listener: socket.socket, admin_listener: socket.socket, stop: asyncio.Event) -> None:
        """Serve on two listening sockets until ``stop`` is set; then end within the time that is left for it.

        Nothing is answered before all workers and Models are known: what is merely cold must not be taken for unknown.
        Raises what one of its tasks ends with, which none does by itself.
        """
        admin = create_server(self._admin, _ADMIN_SECONDS)
        server = create_server(self._proxy, self._settings.drain_seconds)
        work = [feed.run() for feed in self._feeds]
        try:
            self._start([*work, self._demand.run(), self._sweep()])
            probed = self._start([admin.serve(sockets=[admin_listener])])
            await self._until_known(stop)
            if not stop.is_set():
                serving = self._start([server.serve(sockets=[listener])])
                self._serving = True
                _log.info("gateway.serving", namespace=self._settings.namespace, workers=len(self._directory))
                await self._until(stop)
                await self._leave(server)
                await asyncio.gather(*serving)
            admin.should_exit = True
            await asyncio.wait(probed, timeout=_ADMIN_SECONDS)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._pool.close()
            listener.close()
            admin_listener.close()

    def _start(self, work: Iterable[Coroutine[Any, Any, None]]) -> list[asyncio.Task[None]]:
        started = [asyncio.create_task(each) for each in work]
        self._tasks.extend(started)
        return started

    async def _until_known(self, stop: asyncio.Event) -> None:
        while not stop.is_set() and not all(feed.ready for feed in self._feeds):
            self._check()
            await asyncio.sleep(_LOOK_SECONDS)

    async def _until(self, stop: asyncio.Event) -> None:
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([stopped, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        self._check()

    async def _leave(self, server: Server) -> None:
        """Go on for as long as requests may still be sent here, then take nothing new and finish what is under way."""
        self._serving = False
        server.leave()
        _log.info("gateway.leaving", seconds=self._settings.lame_duck_seconds)
        await asyncio.sleep(self._settings.lame_duck_seconds)
        self._proxy.close()
        server.should_exit = True

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self._pool.sweep({worker.endpoint for worker in self._directory})

    def _check(self) -> None:
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error

    def _alive(self) -> bool:
        return all(feed.alive() for feed in self._feeds) and not any(task.done() for task in self._tasks)

    def _ready(self) -> bool:
        return self._serving
