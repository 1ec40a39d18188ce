"""One leader at a time, by a Lease, judged by locally observed time alone.

Neither the wall clock nor the times written in the Lease decide anything: a holder is replaced when its record has not
changed for ``seconds`` of our own monotonic time. Two leaders are still possible for a moment (a frozen one that
wakes), so no write relies on being the only one: each carries its own precondition.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Final

import structlog

from modelpool_operator.domain.errors import ApiError, ConflictError, NotFoundError
from modelpool_operator.domain.podview import format_time
from modelpool_operator.kube import paths
from modelpool_operator.kube.client import KubeClient

_log = structlog.get_logger(__name__)
#: A leader renews this many times within the lease's length.
_RENEWALS: Final = 5


class Elector:
    """Takes and keeps the Lease; ``is_leader`` turns false by itself when it could not be renewed in time."""

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        name: str,
        identity: str,
        seconds: float,
        taken: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._namespace, self._name = namespace, name
        self._identity = identity
        self._seconds = seconds
        self._taken = taken
        self._monotonic = monotonic
        self._seen: tuple[str, float] | None = None  # the record's version, and when we first saw it
        self._renewed: float | None = None

    @property
    def is_leader(self) -> bool:
        """Whether we hold the Lease and have renewed it recently enough that nobody can have taken it."""
        return self._renewed is not None and self._monotonic() - self._renewed < self._seconds * 0.8

    async def run(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Try to take or renew the Lease for ever."""
        was = False
        while True:
            try:
                await self.attempt()
            except ApiError as error:
                _log.warning("lease.unavailable", error=type(error).__name__, status=error.status)
            if self.is_leader != was:
                was = self.is_leader
                _log.info("lease.taken" if was else "lease.lost", identity=self._identity)
                if was:
                    self._taken()
            await sleep(self._seconds / _RENEWALS)

    async def attempt(self) -> None:
        """Take or renew the Lease once, if that is allowed now."""
        started = self._monotonic()  # counted from before the write: it may have been applied at once
        try:
            lease = await self._client.get(paths.leases(self._namespace, self._name))
        except NotFoundError:
            body = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self._name, "namespace": self._namespace},
                "spec": self._spec({}, self._client.clock.now()),
            }
            await self._write(self._client.create(paths.leases(self._namespace), body), started)
            return
        version, spec = lease["metadata"]["resourceVersion"], lease.get("spec") or {}
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, self._monotonic())
        holder = spec.get("holderIdentity") or ""
        if holder not in ("", self._identity) and self._monotonic() - self._seen[1] < self._seconds:
            self._renewed = None
            return
        lease["spec"] = self._spec(spec, self._client.clock.now())
        await self._write(self._client.replace(paths.leases(self._namespace, self._name), lease), started)

    async def release(self) -> None:
        """Give the Lease up, so that a standby need not wait."""
        if not self.is_leader:
            return
        self._renewed = None
        try:
            lease = await self._client.get(paths.leases(self._namespace, self._name))
            if (lease.get("spec") or {}).get("holderIdentity") == self._identity:
                lease["spec"]["holderIdentity"] = ""
                await self._client.replace(paths.leases(self._namespace, self._name), lease)
        except ApiError as error:
            _log.warning("lease.not-released", error=type(error).__name__)

    async def _write(self, request: Awaitable[dict[str, Any]], started: float) -> None:
        try:
            written = await request
        except ConflictError:
            self._renewed = None  # somebody else was quicker
            return
        self._renewed = started
        self._seen = (written["metadata"]["resourceVersion"], started)

    def _spec(self, old: dict[str, Any], now: datetime) -> dict[str, Any]:
        changed = old.get("holderIdentity") != self._identity
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, int(self._seconds)),
            "renewTime": format_time(now),
            "acquireTime": format_time(now) if changed else old.get("acquireTime"),
            "leaseTransitions": int(old.get("leaseTransitions") or 0) + (1 if changed else 0),
        }
