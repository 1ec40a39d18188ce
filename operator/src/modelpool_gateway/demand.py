"""What the gateway tells the operator it needs, by one Lease a Model: asked for in memory, written by one task."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import structlog

from modelpool_gateway.models import Model, Models
from modelpool_operator.api.names import ANNOTATION_KEEP_ALIVE, API_VERSION, LABEL_DEMAND, MODEL, demand_lease
from modelpool_operator.domain.errors import ApiError, ConflictError, NotFoundError
from modelpool_operator.domain.podview import format_time
from modelpool_operator.kube import paths
from modelpool_operator.kube.client import KubeClient

_log = structlog.get_logger(__name__)

#: A Model is written of at most this often, in each of the two ways.
SPACING_SECONDS: Final = 5.0
#: The operator forgets a wish that is not repeated for so long.
LEASE_SECONDS: Final = 15
#: How often it is looked whether somebody still waits.
_LOOK_SECONDS: Final = 1.0
_FIRST_PAUSE: Final = 0.2
_AT_ONCE: Final = 8


@dataclass(slots=True)
class _Wish:
    """What is to be written of one Model, and when something was; times are monotonic seconds."""

    model: Model
    wanted: bool = False
    keep: int | None = None
    wanted_at: float = float("-inf")
    kept_at: float = float("-inf")
    #: what was written last and may not be in the Model's status yet
    kept: int | None = None
    failures: int = 0
    not_before: float = float("-inf")

    def wants_now(self, now: float) -> bool:
        return self.wanted and now >= max(self.wanted_at + SPACING_SECONDS, self.not_before)

    def keeps_now(self, now: float) -> bool:
        return self.keep is not None and now >= max(self.kept_at + SPACING_SECONDS, self.not_before)


class Demand:
    """Writes demand Leases. ``still_wanted`` gives the Models that somebody waits for at that moment."""

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        identity: str,
        models: Models,
        still_wanted: Callable[[], Iterable[Model]],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._namespace, self._identity = client, namespace, identity
        self._models, self._still_wanted = models, still_wanted
        self._monotonic = monotonic
        self._wishes: dict[str, _Wish] = {}
        self._news = asyncio.Event()

    def want(self, model: Model) -> None:
        """Somebody waits for a worker of the Model."""
        self._wish(model).wanted = True
        self._news.set()

    def keep(self, model: Model, seconds: int) -> None:
        """The Model's workers are to stay so long after their last use; the latest word counts."""
        wish = self._wish(model)
        if wish.keep is None and wish.kept in (None, seconds) and model.keep_alive == seconds:
            return  # it is so already
        wish.keep = seconds
        self._news.set()

    async def run(self) -> None:
        """Write for ever what is to be written."""
        while True:
            self._news.clear()
            try:
                await self.write_due()
            except Exception as error:  # what nobody has thought of must not end all that is served meanwhile
                _log.error("demand.failed", error=type(error).__name__)
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def write_due(self) -> None:
        """Write what is due now, a few Models at once."""
        waited_for = set()
        for model in self._still_wanted():
            waited_for.add(model.uid)
            self._wish(model).wanted = True
        known = {model.uid: model for model in self._models}
        now = self._monotonic()
        writes: list[Awaitable[None]] = []
        gate = asyncio.Semaphore(_AT_ONCE)
        for uid, wish in list(self._wishes.items()):
            if uid not in known:
                del self._wishes[uid]
                continue
            wish.model = known[uid]
            if wish.wants_now(now):
                writes.append(self._write_want(wish, gate))
            elif wish.keeps_now(now):  # in turn: each of the two is a write of its own
                writes.append(self._write_keep(wish, gate))
            if uid not in waited_for and not wish.wants_now(now):
                wish.wanted = False  # whoever waited has been served since
        await asyncio.gather(*writes)

    def _wish(self, model: Model) -> _Wish:
        return self._wishes.setdefault(model.uid, _Wish(model))

    async def _write_want(self, wish: _Wish, gate: asyncio.Semaphore) -> None:
        wish.wanted, wish.wanted_at = False, self._monotonic()
        if not await self._write(wish, None, gate):
            wish.wanted, wish.wanted_at = True, float("-inf")

    async def _write_keep(self, wish: _Wish, gate: asyncio.Semaphore) -> None:
        seconds, wish.keep = wish.keep, None
        if wish.kept == wish.model.keep_alive:
            wish.kept = None  # the operator has taken it
        if wish.kept in (None, seconds) and wish.model.keep_alive == seconds:
            return
        before, wish.kept, wish.kept_at = wish.kept, seconds, self._monotonic()
        if not await self._write(wish, seconds, gate):
            wish.kept, wish.kept_at = before, float("-inf")
            wish.keep = seconds if wish.keep is None else wish.keep

    async def _write(self, wish: _Wish, keep_alive: int | None, gate: asyncio.Semaphore) -> bool:
        """Write the Lease; return whether that was possible, else it is tried again after a pause."""
        body = lease(wish.model, self._identity, format_time(self._client.clock.now()), keep_alive)
        try:
            async with gate:
                await self._put(wish.model, body)
        except Exception as error:
            known = error if isinstance(error, ApiError) else ApiError("")
            pause = known.retry_after or min(SPACING_SECONDS, _FIRST_PAUSE * 2 ** min(wish.failures, 8))
            wish.failures += 1
            wish.not_before = self._monotonic() + pause
            _log.warning("demand.unwritten", model=wish.model.name, error=type(error).__name__, status=known.status)
            return False
        wish.failures = 0
        return True

    async def _put(self, model: Model, body: dict[str, Any]) -> None:
        path = paths.leases(self._namespace, demand_lease(model.name))
        try:
            await self._client.patch(path, body)
        except NotFoundError:
            try:
                await self._client.create(paths.leases(self._namespace), _whole(body))
            except ConflictError:  # another gateway was quicker
                await self._client.patch(path, body)


def _whole(patch: dict[str, Any]) -> dict[str, Any]:
    """Return a merge patch as the object that it makes of nothing."""
    given = patch["metadata"]["annotations"].items()
    annotations = {name: value for name, value in given if value is not None}
    return {**patch, "metadata": {**patch["metadata"], "annotations": annotations}}


def lease(model: Model, identity: str, now: str, keep_alive: int | None) -> dict[str, Any]:
    """Return the Lease, whole: to be created, or as a merge patch. ``keep_alive`` of None: a worker is wanted."""
    owner = {"apiVersion": API_VERSION, "kind": MODEL, "name": model.name, "uid": model.uid}
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": demand_lease(model.name),
            "namespace": model.namespace,
            "labels": {LABEL_DEMAND: model.name},
            "annotations": {ANNOTATION_KEEP_ALIVE: None if keep_alive is None else str(keep_alive)},
            "ownerReferences": [owner],
        },
        "spec": {"holderIdentity": identity, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now},
    }
