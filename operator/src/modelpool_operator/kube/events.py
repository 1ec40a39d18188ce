"""Events on ModelWorkers and ModelPools: one for each lifecycle move, none for load."""

import asyncio
from datetime import datetime
from typing import Any, Final

import structlog

from modelpool_operator.api import names
from modelpool_operator.domain.errors import ApiError
from modelpool_operator.domain.podview import format_time
from modelpool_operator.kube import paths
from modelpool_operator.kube.client import KubeClient

_log = structlog.get_logger(__name__)
_WRITERS: Final = 4
#: Events that wait to be written by one writer; more are dropped: the moves themselves are in the workers' status.
_WAITING: Final = 1000
_FLUSH_SECONDS: Final = 2.0


class EventRecorder:
    """Writes Events beside the work, which never waits for them; one that cannot be written is counted.

    Those about one object are written in their order.
    """

    def __init__(self, client: KubeClient, instance: str) -> None:
        self._client = client
        self._instance = instance
        self._queues: list[asyncio.Queue[tuple[tuple[str, str], dict[str, Any]]]] = [
            asyncio.Queue(_WAITING) for _ in range(_WRITERS)
        ]
        self.lost = 0

    async def run(self) -> None:
        """Write what was recorded, for ever."""
        async with asyncio.TaskGroup() as group:
            for queue in self._queues:
                group.create_task(self._write_all(queue))

    async def flush(self) -> None:
        """Write what still waits, as far as that goes quickly; to be called when ``run`` has ended."""
        writing = [self._write(*queue.get_nowait()) for queue in self._queues for _ in range(queue.qsize())]
        try:
            async with asyncio.timeout(_FLUSH_SECONDS):
                await asyncio.gather(*writing)
        except TimeoutError:
            _log.warning("events.unwritten", at_most=len(writing))

    def record(
        self,
        kind: str,
        key: tuple[str, str],
        uid: str,
        *,
        reason: str,
        action: str,
        note: str,
        warning: bool,
        now: datetime,
    ) -> None:
        """Have one Event about the object written."""
        namespace, name = key
        stamp = format_time(now)
        body: dict[str, Any] = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"generateName": f"{name[:200]}-", "namespace": namespace},
            "eventTime": stamp,
            "reportingController": f"{names.GROUP}/operator",
            "reportingInstance": self._instance,
            "action": action,
            "reason": reason,
            "note": note[:1024],
            "type": "Warning" if warning else "Normal",
            "regarding": {
                "apiVersion": names.API_VERSION,
                "kind": kind,
                "namespace": namespace,
                "name": name,
                "uid": uid,
            },
        }
        queue = self._queues[hash(uid) % _WRITERS]
        try:
            queue.put_nowait((key, body))
        except asyncio.QueueFull:
            self._lose(key, reason, error="QueueFull", status=0)

    async def _write_all(self, queue: "asyncio.Queue[tuple[tuple[str, str], dict[str, Any]]]") -> None:
        while True:
            await self._write(*await queue.get())

    async def _write(self, key: tuple[str, str], body: dict[str, Any]) -> None:
        try:
            await self._client.create(paths.events(key[0]), body)
        except ApiError as error:
            self._lose(key, body["reason"], error=type(error).__name__, status=error.status)

    def _lose(self, key: tuple[str, str], reason: str, *, error: str, status: int) -> None:
        self.lost += 1
        _log.warning("event.lost", object=key, reason=reason, error=error, status=status)
