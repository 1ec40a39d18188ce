"""The full LIST that is the truth: what watches missed, repeated or never said is found here."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from modelpool_operator.domain.errors import ApiError
from modelpool_operator.kube import paths
from modelpool_operator.kube.client import KubeClient
from modelpool_operator.runtime.cache import Key, Listing
from modelpool_operator.runtime.knowledge import POD_SELECTOR, Knowledge

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Changes:
    """What a sweep found otherwise than it was remembered, or gone."""

    workers: set[Key]
    pools: set[Key]
    models: set[Key]
    pods: set[Key]


class Sweeper:
    """Lists workers, pools, Models and pods every so often and reports what is not as it was remembered."""

    def __init__(
        self,
        client: KubeClient,
        knowledge: Knowledge,
        namespaces: Sequence[str],
        seconds: float,
        changed: Callable[[Changes], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._knowledge = knowledge
        self._namespaces: Sequence[str | None] = list(namespaces) or [None]
        self._seconds = seconds
        self._changed = changed
        self._monotonic = monotonic
        self.last_success = monotonic()
        #: whether the last sweep failed; still true while the first good one after it is reported
        self.failing = False

    async def run(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Sweep for ever; one that fails is tried again soon."""
        while True:
            try:
                await self.sweep()
            except ApiError as error:
                self.failing = True
                _log.warning("sweep.failed", error=type(error).__name__, status=error.status)
                await sleep(min(2.0, self._seconds))
                continue
            self.failing = False
            await sleep(self._seconds)

    async def sweep(self) -> None:
        """List everything once and take it as the truth."""
        known = self._knowledge
        workers, pools, pods = known.workers.listing(), known.pools.listing(), known.pods.listing()
        models = known.models.listing()
        for namespace in self._namespaces:
            await self._list(pools, paths.pools(namespace))
            await self._list(models, paths.models(namespace))
            await self._list(workers, paths.workers(namespace))
            await self._list(pods, paths.pods(namespace), POD_SELECTOR)
        self._changed(Changes(workers.end(), pools.end(), models.end(), pods.end()))
        self.last_success = self._monotonic()

    async def _list(self, listing: Listing[Any], path: str, selector: str | None = None) -> None:
        async for anew, page in self._client.pages(path, selector):
            listing.take(path, page, anew=anew)
