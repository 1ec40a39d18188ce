"""What the proxy can do to requests and answers, and to which of them."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from aiohttp import web

from control_plane.operator_runs.proxy import Fault, Forward, begun, passed_on

Which = Callable[[web.Request], bool]
#: Takes one event of a watch, a line of JSON, and returns what is sent in its place.
Rewrite = Callable[[bytes], list[bytes]]
#: kopf says at level error that it tries again.
TRIED_AGAIN = "^Request attempt .* will retry"
REASONS = {
    409: "Conflict",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


def is_watch(request: web.Request) -> bool:
    return request.query.get("watch") in ("1", "true")


def is_list(request: web.Request) -> bool:
    collection = request.path.rsplit("/", 1)[-1] in ("models", "modelworkers", "modelpools", "pods")
    # whether lists are answered at all, the operator asks for by one that is no list of what there is
    return request.method == "GET" and collection and not is_watch(request) and request.query.get("limit") != "1"


def is_call(request: web.Request) -> bool:
    """Whether it is anything but a watch or the operator's look at what the API server can do."""
    return "/namespaces/" in request.path and not is_watch(request)


def is_write(request: web.Request) -> bool:
    return request.method not in ("GET", "HEAD")


def kind_of(request: web.Request) -> str:
    """What is asked of which resource: ``PATCH modelworkers/status``."""
    parts = request.path.partition("/namespaces/")[2].split("/")[1:]
    return " ".join([request.method, "/".join(parts[:1] + parts[2:])])


class Spoil:
    """Does something to every so-manieth request of each kind, so many times at most; as a `Proxy.fault_of`."""

    def __init__(self, which: Which, fault: Fault, *, every: int = 1, times: int | None = None) -> None:
        self._which, self._fault, self._every, self._left = which, fault, every, times
        self._counts: Counter[str] = Counter()
        self.done = 0

    def __call__(self, request: web.Request) -> Fault | None:
        if not self._which(request):
            return None
        kind = kind_of(request)
        self._counts[kind] += 1
        if self._counts[kind] % self._every or self._left == self.done:
            return None
        self.done += 1
        return self._fault


def refuse(status: int, retry_after: int | None = None) -> Fault:
    """The request never reaches the API server."""

    async def fault(request: web.Request, forward: Forward) -> web.StreamResponse:
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        return web.json_response(_said(status), status=status, headers=headers)

    return fault


def delay(seconds: float) -> Fault:
    async def fault(request: web.Request, forward: Forward) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return await passed_on(request, forward)

    return fault


def lose(status: int | None = None) -> Fault:
    """It is done, but who asked hears nothing of it: the connection ends, or somebody in between says ``status``."""

    async def fault(request: web.Request, forward: Forward) -> web.StreamResponse:
        async with forward() as answer:
            await answer.read()
        if status is not None:
            return web.json_response(_said(status), status=status)
        return _hung_up(request)

    return fault


async def cut(request: web.Request, forward: Forward) -> web.StreamResponse:
    """The connection ends in the middle of the answer."""
    async with forward() as answer:
        data = await answer.read()
        response = await begun(request, answer)
        await response.write(data[: max(1, len(data) // 2)])
    return _hung_up(request)


async def say_nothing(request: web.Request, forward: Forward) -> web.StreamResponse:
    """A watch that is open and tells nothing."""
    async with forward() as answer:
        response = await begun(request, answer)
        async for _ in answer.content:
            pass
    return response


def end_with(status: int) -> Fault:
    """A watch whose first event is an error, its last; 410 for a version to begin at that is too old."""

    async def fault(request: web.Request, forward: Forward) -> web.StreamResponse:
        return web.json_response({"type": "ERROR", "object": _said(status)})

    return fault


def rewritten(make: Callable[[], Rewrite]) -> Fault:
    """Each watch's events go through a rewriter of its own."""

    async def fault(request: web.Request, forward: Forward) -> web.StreamResponse:
        rewrite = make()
        async with forward() as answer:
            response = await begun(request, answer)
            async for line in answer.content:
                for told in rewrite(line):
                    await response.write(told)
        return response

    return fault


def dropping(which: Callable[[dict[str, Any]], bool] | None = None) -> Fault:
    """Events are left out: those of one sort, or every second one."""

    def make() -> Rewrite:
        count = 0

        def rewrite(line: bytes) -> list[bytes]:
            nonlocal count
            count += 1
            missed = count % 2 == 1 if which is None else which(json.loads(line))
            return [] if missed else [line]

        return rewrite

    return rewritten(make)


repeating = rewritten(lambda: lambda line: [line, line])


def _late() -> Rewrite:
    held: list[bytes] = []

    def rewrite(line: bytes) -> list[bytes]:
        if held:
            return [line, held.pop()]
        held.append(line)
        return []

    return rewrite


#: Every second event comes only after the one behind it.
reordering = rewritten(_late)


class OldLists:
    """Keeps the lists as they are at one time; later the first two who ask for one get it as it was."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}
        self.given: Counter[str] = Counter()
        self.old = False

    @property
    def complete(self) -> bool:
        """Whether workers, pools, Models and pods have all been listed since."""
        return len(self._kept) == 4

    def fault_of(self, request: web.Request) -> Fault | None:
        return self._answer if is_list(request) else None

    async def _answer(self, request: web.Request, forward: Forward) -> web.StreamResponse:
        async with forward() as answer:
            data = await answer.read()
        if not self.old:
            self._kept[request.path] = data
        elif self.given[request.path] < 2 and request.path in self._kept:
            self.given[request.path] += 1
            data = self._kept[request.path]
        return web.Response(body=data, content_type="application/json")


def _said(status: int) -> dict[str, Any]:
    said = {"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": status}
    return {**said, "reason": REASONS[status], "message": "spoiled by the test's proxy"}


def _hung_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()
