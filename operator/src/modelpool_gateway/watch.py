"""What the API server says of workers and Models, kept in memory: a list, then what has changed since, for ever."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any, Final

import structlog

from modelpool_gateway.directory import Directory, Key, read_worker
from modelpool_gateway.models import Models, read_model
from modelpool_operator.domain.errors import ApiError
from modelpool_operator.kube import paths
from modelpool_operator.kube.client import KubeClient

_log = structlog.get_logger(__name__)

Object = Mapping[str, Any]

#: A watch is asked for anew after so long: one that is dead without knowing it is found out by then.
WATCH_SECONDS: Final = 45
#: Pause after an error, doubled with each further one; also after a watch that ends at once.
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 15.0
_SHORT_SECONDS: Final = 1.0
#: Longer without a try, whatever came of it, and the task is stuck.
_STUCK_SECONDS: Final = 300.0
_GONE: Final = 410


class Feed:
    """Keeps one kind of objects. ``read`` raises for what is no such object; that one is left out, and logged."""

    def __init__(
        self,
        client: KubeClient,
        path: str,
        read: Callable[[Object], object],
        replace: Callable[[list[Object]], Iterable[Key]],
        observe: Callable[[Object], Iterable[Key]],
        forget: Callable[[str], Iterable[Key]],
        changed: Callable[[Key], None],
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client, self._path, self._read = client, path, read
        self._replace, self._observe, self._forget, self._changed = replace, observe, forget, changed
        self._monotonic, self._sleep = monotonic, sleep
        #: a first list has been read
        self.ready = False
        self._version = ""
        self._moved = monotonic()
        self._failures = 0

    def alive(self) -> bool:
        """Whether the task goes on; an API server that does not answer is no reason to end it."""
        return self._monotonic() - self._moved < _STUCK_SECONDS

    async def run(self) -> None:
        """Keep up for ever."""
        while True:
            began = self._monotonic()
            try:
                await self._follow()
                short = self._monotonic() - began < _SHORT_SECONDS
                pause = _FIRST_PAUSE if short else 0.0
            except ApiError as error:
                if error.status in (_GONE, 404):
                    self._version = ""  # too old to go on from
                pause = self._next_pause()
                _log.warning("watch.broken", path=self._path, error=type(error).__name__, status=error.status)
            except Exception as error:  # what nobody has thought of must not end all that is served meanwhile
                self._version = ""  # whatever was half taken is in the next list
                pause = self._next_pause()
                _log.error("watch.failed", path=self._path, error=type(error).__name__)
            self._moved = self._monotonic()
            if pause:
                await self._sleep(pause)

    def _next_pause(self) -> float:
        self._failures += 1
        return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._failures - 1, 8))

    async def _follow(self) -> None:
        """Read the list where there is none to go on from, then follow what changes for a while."""
        if not self._version:
            objects, version = await self._client.snapshot(self._path)
            self._tell(self._replace([obj for obj in objects if self._is_sound(obj)]))
            self._version, self.ready = version, True
        async with aclosing(self._client.watch(self._path, self._version, WATCH_SECONDS)) as events:
            async for event in events:
                self._take(event["type"], event["object"])
                self._moved, self._failures = self._monotonic(), 0

    def _take(self, kind: str, obj: Object) -> None:
        if kind == "DELETED":
            self._tell(self._forget(obj["metadata"]["uid"]))
        elif kind in ("ADDED", "MODIFIED") and self._is_sound(obj):
            self._tell(self._observe(obj))
        self._version = obj["metadata"]["resourceVersion"]  # a bookmark's, too

    def _tell(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self._changed(key)

    def _is_sound(self, obj: Object) -> bool:
        try:
            self._read(obj)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            name = (obj.get("metadata") or {}).get("name")
            _log.error("watch.unreadable", path=self._path, name=name, error=type(error).__name__)
            return False
        return True


def feed_of_workers(client: KubeClient, namespace: str, directory: Directory, changed: Callable[[Key], None]) -> Feed:
    """Return the feed of a namespace's ModelWorkers."""

    def forget(uid: str) -> Iterable[Key]:
        key = directory.forget(uid)
        return () if key is None else (key,)

    return Feed(
        client,
        paths.workers(namespace),
        read_worker,
        directory.replace,
        lambda obj: (directory.observe(obj),),
        forget,
        changed,
    )


def feed_of_models(client: KubeClient, namespace: str, models: Models, changed: Callable[[Key], None]) -> Feed:
    """Return the feed of a namespace's Models."""
    return Feed(client, paths.models(namespace), read_model, models.replace, models.observe, models.forget, changed)
