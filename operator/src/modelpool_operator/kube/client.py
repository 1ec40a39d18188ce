"""The one client of the API server: dictionaries in and out, our errors, the server's clock.

Built on the official ``kubernetes.aio`` client (configuration, credentials, TLS, connection pool); its typed models are
not used, because parsing thousands of pods into them costs more than everything else the operator does.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final, Literal, TypeVar
from urllib.parse import urlencode

import aiohttp
import orjson
from kubernetes.aio import client as k8s
from kubernetes.aio import config as k8s_config

from modelpool_operator.domain import errors

T = TypeVar("T")
Json = dict[str, Any]
PatchKind = Literal["merge", "json"]

_CONTENT_TYPES: Final[Mapping[PatchKind, str]] = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
}
_BY_STATUS: Final[Mapping[int, type[errors.ApiError]]] = {
    401: errors.DeniedError,
    403: errors.DeniedError,
    404: errors.NotFoundError,
    409: errors.ConflictError,
    410: errors.NotFoundError,
    422: errors.InvalidError,
    429: errors.BusyError,
}
#: (connect, read) seconds. A read may be a large LIST; a watch has its own.
_TIMEOUT: Final = aiohttp.ClientTimeout(total=60, sock_connect=5, sock_read=30)
_PAGE: Final = 250
#: etcd stores 1.5 MiB of an object, JSON of it may be longer.
_MAX_EVENT_BYTES: Final = 16 * 1024 * 1024
#: Seconds beyond its time after which a watch that says nothing is given up.
_GRACE: Final = 15
#: A list that expires while it is read is begun so often.
_LISTS: Final = 3
#: A ``Date`` this many seconds behind our reckoning means that the server's clock was changed.
_SET_BACK: Final = 30.0

Observer = Callable[[str, str, int], None]


class ServerClock:
    """The API server's time, from the ``Date`` of its answers, carried on by the local monotonic clock.

    Deadlines compare against times that the API server or another operator wrote, so every operator has to use
    the same clock; the local wall clock may be minutes off.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._base: datetime | None = None
        self._at = 0.0

    def observe(self, date_header: str | None) -> None:
        """Take the ``Date`` header of an answer.

        It is cut to whole seconds and may arrive late, so it never runs ahead: the latest reading is the best. A
        server clock that was set back by more than a slow answer explains is followed as well.
        """
        if not date_header:
            return
        try:
            seen = parsedate_to_datetime(date_header)
        except ValueError:
            return
        if self._base is None or seen > self.now() or (self.now() - seen).total_seconds() > _SET_BACK:
            self._base, self._at = seen, self._monotonic()

    def now(self) -> datetime:
        """Return the server's present time, UTC; the local clock's until the first answer."""
        if self._base is None:
            return datetime.now(UTC)  # noqa: TID251 - the edge where time enters
        return self._base + timedelta(seconds=self._monotonic() - self._at)


class KubeClient:
    """Requests to the API server. One instance per process; close it at the end."""

    def __init__(self, api: k8s.ApiClient, observe: Observer | None = None, agent: str = "modelpool-operator") -> None:
        self._api = api
        self._agent = agent
        self._observe = observe
        self.clock = ServerClock()
        self.writes = 0

    @classmethod
    async def connect(cls, observe: Observer | None = None, agent: str = "modelpool-operator") -> "KubeClient":
        """Configure from the pod's service account, else from the current kubeconfig."""
        configuration = k8s.Configuration()
        try:
            k8s_config.load_incluster_config(client_configuration=configuration)
        except k8s_config.ConfigException:
            try:
                await k8s_config.load_kube_config(client_configuration=configuration)
            except k8s_config.ConfigException as error:
                raise errors.ApiError(
                    "expected to run in a pod with a service account, or with a current context in the kubeconfig, "
                    "for example KUBECONFIG=~/.kube/config"
                ) from error
        configuration.connection_pool_maxsize = 64
        # proxies of the environment are for the outside, never for the API server
        configuration.client_session_kwargs = {"trust_env": False}
        return cls(k8s.ApiClient(configuration), observe, agent)

    async def close(self) -> None:
        """Close all connections."""
        await self._api.close()

    async def get(self, path: str) -> Json:
        """Read one object."""
        return await self._request("GET", path)

    async def list_all(self, path: str, label_selector: str | None = None) -> list[Json]:
        """Read a whole collection."""
        items: list[Json] = []
        async for anew, page in self.pages(path, label_selector):
            if anew:
                items.clear()
            items.extend(page)
        return items

    async def pages(self, path: str, label_selector: str | None = None) -> AsyncIterator[tuple[bool, list[Json]]]:
        """Read a collection page by page, from etcd and not from a cache: (whether it begins, again, here; objects).

        A list that expired while it was read begins anew: what came before counts no more.
        """
        async for anew, page in self._pages(path, label_selector):
            yield anew, page.get("items") or []

    async def snapshot(self, path: str) -> tuple[list[Json], str]:
        """Read a whole collection, and the version that `watch` goes on from."""
        items: list[Json] = []
        version = ""
        async for anew, page in self._pages(path, None):
            if anew:
                items.clear()
                version = page["metadata"]["resourceVersion"]
            items.extend(page.get("items") or [])
        return items, version

    async def watch(self, path: str, version: str, seconds: int) -> AsyncGenerator[Json, None]:
        """Tell what happens to a collection after a version: events with ``type`` and ``object``.

        It ends after so many seconds, and may end sooner. Raises ``NotFoundError`` with status 410 where the version
        is too old, and any other ``ApiError``. Close it where it is not read to its end.
        """
        query = {"watch": "1", "allowWatchBookmarks": "1", "resourceVersion": version, "timeoutSeconds": str(seconds)}
        url = f"{self._api.configuration.host}{path}?{urlencode(query)}"
        headers = {"Accept": "application/json", "User-Agent": self._agent}
        await self._authorize(headers, "GET", path)
        limits = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=seconds + _GRACE)
        status = 0
        try:
            answer = await self._api.rest_client.request("GET", url, headers=headers, _request_timeout=limits)
            status = answer.status
            self.clock.observe(answer.getheader("Date"))
            try:
                if status != 200:
                    _parse("GET", path, status, await answer.read(), answer.getheader("Retry-After"))
                async for line in _lines(answer.response.content):
                    yield _event(path, line)
            finally:
                answer.response.close()
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise errors.UnreachableError(f"watch {path}: {type(error).__name__}: {error}") from error
        finally:
            if self._observe:
                self._observe("WATCH", path, status)

    async def _pages(self, path: str, label_selector: str | None) -> AsyncIterator[tuple[bool, Json]]:
        for _ in range(_LISTS):
            token, anew = None, True
            try:
                while anew or token:
                    query = {"limit": str(_PAGE), "labelSelector": label_selector, "continue": token}
                    page = await self._request("GET", path, query=query)
                    yield anew, page
                    token, anew = (page.get("metadata") or {}).get("continue"), False
            except errors.NotFoundError as error:
                if error.status != 410:
                    raise
            else:
                return
        raise errors.UnreachableError(f"the list of {path} expired {_LISTS} times while it was being read", 410)

    async def create(self, path: str, body: Json) -> Json:
        """Create an object; ``ConflictError`` where the name is taken."""
        return await self._request("POST", path, body=body)

    async def replace(self, path: str, body: Json) -> Json:
        """Replace an object whose ``metadata`` carries the resourceVersion it was planned on."""
        return await self._request("PUT", path, body=body)

    async def patch(self, path: str, body: Json | list[Json], kind: PatchKind = "merge") -> Json:
        """Patch an object; put the resourceVersion into a merge patch, or ``test`` operations into a JSON patch."""
        return await self._request("PATCH", path, body=body, content_type=_CONTENT_TYPES[kind])

    async def delete(self, path: str, uid: str, grace_seconds: int | None = None) -> None:
        """Delete the object with this uid; one that is gone, or has another uid, raises nothing worth acting on."""
        body: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        try:
            await self._request("DELETE", path, body=body)
        except (errors.NotFoundError, errors.ConflictError):
            return  # already gone, or the name belongs to a newer object: what we wanted gone is gone

    async def _request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, str | None] | None = None,
        content_type: str = "application/json",
    ) -> Json:
        url = self._api.configuration.host + path
        given = {key: value for key, value in (query or {}).items() if value}
        if given:
            url += "?" + urlencode(given)
        headers = {"Accept": "application/json", "Content-Type": content_type, "User-Agent": self._agent}
        await self._authorize(headers, method, path)
        if method != "GET":
            self.writes += 1
        status = 0
        try:
            answer = await self._api.rest_client.request(
                method, url, headers=headers, body=body, _request_timeout=_TIMEOUT
            )
            status, data = answer.status, await answer.read()
            self.clock.observe(answer.getheader("Date"))
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise errors.UnreachableError(f"{method} {path}: {type(error).__name__}: {error}") from error
        finally:
            if self._observe:
                self._observe(method, path, status)
        return _parse(method, path, status, data, answer.getheader("Retry-After"))

    async def _authorize(self, headers: dict[str, str], method: str, path: str) -> None:
        """Add the credentials, which are read again now and then: from a file, or from a program's output.

        Whatever goes wrong there is one more way of having no answer, and may be well the next time.
        """
        try:
            await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, None)
        except Exception as error:
            raise errors.UnreachableError(f"{method} {path}: no credentials: {type(error).__name__}") from error


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Split a stream into lines. An object may be much longer than what aiohttp takes for a line.

    Raises ``ValueError`` for one that is longer than any object that the API server stores.
    """
    parts: list[bytes] = []
    size = 0
    async for piece in content.iter_any():
        *ended, rest = piece.split(b"\n")
        for line in ended:
            yield b"".join((*parts, line))
            parts, size = [], 0
        if rest:
            parts.append(rest)
            size += len(rest)
            if size > _MAX_EVENT_BYTES:
                raise ValueError(f"an event of more than {_MAX_EVENT_BYTES} bytes")


def _parse(method: str, path: str, status: int, data: bytes, retry_after: str | None) -> Json:
    try:
        content: Any = orjson.loads(data) if data else {}
    except orjson.JSONDecodeError:
        content = None
    if 200 <= status < 300 and isinstance(content, dict):
        return content
    said = content.get("message", "") if isinstance(content, dict) else ""
    kind = _BY_STATUS.get(status, errors.UnreachableError)
    raise kind(f"{method} {path}: {status} {said}".rstrip(), status, _seconds(retry_after))


def _event(path: str, line: bytes) -> Json:
    """Read one line of a watch; raises what an ERROR in it says."""
    try:
        event = orjson.loads(line)
        kind, told = event["type"], event["object"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise errors.UnreachableError(f"watch {path}: expected events with type and object") from None
    if kind == "ERROR":
        code = told.get("code") or 0
        raise _BY_STATUS.get(code, errors.UnreachableError)(f"watch {path}: {code} {told.get('message', '')}", code)
    return {"type": kind, "object": told}


def _seconds(retry_after: str | None) -> float | None:
    try:
        return min(float(retry_after), 120.0) if retry_after else None
    except ValueError:
        return None


async def retrying(
    attempt: Callable[[], Awaitable[T]], *, tries: int = 4, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> T:
    """Call ``attempt`` again after a busy or broken answer, a little later each time; other errors pass at once."""
    for number in range(1, tries):
        try:
            return await attempt()
        except (errors.BusyError, errors.UnreachableError) as error:
            await sleep(error.retry_after or 0.2 * 2**number)
    return await attempt()
