"""How the gateway keeps up with the API server."""

import asyncio

import pytest

from modelpool_gateway.directory import Directory
from modelpool_gateway.models import Models
from modelpool_gateway.waiting_room import Bounds, WaitingRoom
from modelpool_gateway.watch import feed_of_models, feed_of_workers
from modelpool_operator.domain.errors import UnreachableError
from unit.modelpool_gateway.api_server import ApiServer
from unit.modelpool_gateway.site import until

WORKERS = "/apis/modelpool.dev/v1alpha1/namespaces/ns/modelworkers"
MODELS = "/apis/modelpool.dev/v1alpha1/namespaces/ns/models"


def worker(name: str, state: str = "Ready", model: str = "m") -> dict:
    status = {"state": state, "endpoint": f"http://{name}:8080"}
    return {
        "metadata": {"name": name, "namespace": "ns", "uid": f"uid-{name}"},
        "spec": {"model": {"name": model}},
        "status": status,
    }


def model(name: str) -> dict:
    meta = {"name": name, "namespace": "ns", "uid": f"uid-{name}", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"metadata": meta, "spec": {"worker": {"model": {"name": "m", "capability": "text-embedding"}}}}


class Watching:
    """The feed of workers, on its way; it pauses as long as the test says."""

    def __init__(self, client) -> None:
        self.directory = Directory()
        self.room: WaitingRoom = WaitingRoom(Bounds())
        self.feed = feed_of_workers(client, "ns", self.directory, self.room.changed)
        self.pauses: list[float] = []
        self.feed._sleep = self.pause
        self.changed: list[tuple[str, str]] = []
        self.feed._changed = self.changed.append

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)

    @property
    def names(self) -> set[str]:
        return {each.name for each in self.directory if each.serves}


@pytest.fixture
def server() -> ApiServer:
    return ApiServer()


@pytest.fixture
async def watching(server):
    async with server.running() as client:
        found = Watching(client)
        task = asyncio.create_task(found.feed.run())
        yield found
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_is_there_is_known_before_it_is_said_to_be_ready_and_what_changes_is_told(watching, server):
    assert not watching.feed.ready
    server.put(WORKERS, worker("a"))
    await until(lambda: server.watched(WORKERS))
    assert watching.feed.ready
    assert watching.names == {"a"}
    server.put(WORKERS, worker("b"), "ADDED")
    await until(lambda: watching.names == {"a", "b"})
    server.put(WORKERS, worker("a", "Evicting"))
    await until(lambda: watching.names == {"b"})
    server.put(WORKERS, worker("a", "Dead"), "DELETED")
    await until(lambda: len(watching.directory) == 1)
    assert watching.changed == [("ns", "m")] * 4
    assert (server.lists, watching.pauses) == (1, [])


async def test_a_watch_that_ends_goes_on_where_it_was_and_reads_no_list(watching, server):
    await until(lambda: server.watched(WORKERS))
    server.tell(WORKERS, {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "77"}}})
    await until(lambda: watching.feed._version == "77")
    server.end_watches()
    await until(lambda: not server.watched(WORKERS) or watching.pauses)
    await until(lambda: server.watched(WORKERS))
    server.put(WORKERS, worker("a"), "ADDED")
    await until(lambda: watching.names == {"a"})
    assert server.lists == 1


async def test_an_object_may_be_as_large_as_the_api_server_stores_one(watching, server):
    """Annotations alone may have 256 KiB, and what kubectl has applied last stands in them once more."""
    await until(lambda: server.watched(WORKERS))
    large = worker("large")
    large["metadata"]["annotations"] = {"note": "x" * 1_000_000}
    server.put(WORKERS, large)
    server.put(WORKERS, worker("small"))
    await until(lambda: watching.names >= {"large", "small"})
    assert watching.pauses == []


@pytest.mark.parametrize("how", ["in-the-answer", "in-the-stream"])
async def test_a_version_that_is_too_old_means_a_new_list_which_drops_what_was_missed(watching, server, how):
    server.put(WORKERS, worker("gone"), "ADDED")
    await until(lambda: server.watched(WORKERS))
    watching.changed.clear()
    server.objects.clear()  # deleted unseen
    server.objects[f"{WORKERS}/new"] = {
        **worker("new"),
        "metadata": {**worker("new")["metadata"], "resourceVersion": "99"},
    }
    server.version = 100
    if how == "in-the-answer":
        server.oldest = 100
        server.end_watches()
    else:
        status = {"kind": "Status", "code": 410, "message": "too old resource version"}
        server.tell(WORKERS, {"type": "ERROR", "object": status})
    await until(lambda: watching.names == {"new"})
    assert server.lists == 2
    assert watching.feed.ready


async def test_errors_are_tried_again_after_longer_and_longer_pauses_and_what_is_known_stays(watching, server):
    server.put(WORKERS, worker("a"), "ADDED")
    await until(lambda: server.watched(WORKERS))
    server.failures.extend([500, 503, 403, 429, 500])
    server.end_watches()
    await until(lambda: not server.failures and server.watched(WORKERS))
    assert watching.names == {"a"}
    assert watching.pauses[-4:] == sorted(watching.pauses[-4:])
    assert max(watching.pauses) >= 4
    assert server.lists == 1


@pytest.mark.parametrize("line", [b"no json\n", b'{"type": "ADDED"}\n', b"[]\n"], ids=["text", "no-object", "list"])
async def test_what_is_no_event_ends_the_watch_and_not_the_feed(watching, server, line):
    await until(lambda: server.watched(WORKERS))
    server.tell(WORKERS, line)
    await until(lambda: watching.pauses and server.watched(WORKERS))
    server.put(WORKERS, worker("a"), "ADDED")
    await until(lambda: watching.names == {"a"})


@pytest.mark.parametrize(
    "line",
    [b'{"type": "ADDED", "object": 7}\n', b'{"type": "ERROR", "object": []}\n', b'{"type": "DELETED", "object": {}}\n'],
    ids=["number", "error-of-a-list", "nobody-deleted"],
)
async def test_what_nobody_has_thought_of_means_a_new_list_and_not_the_end(watching, server, line):
    await until(lambda: server.watched(WORKERS))
    server.tell(WORKERS, line)
    # the server may see the old watch for a moment longer than its client
    await until(lambda: watching.pauses and server.lists > 1 and server.watched(WORKERS))
    assert server.lists == 2
    server.put(WORKERS, worker("a"), "ADDED")
    await until(lambda: watching.names == {"a"})


@pytest.mark.parametrize("error", [OSError(2, "gone"), ValueError("not a token"), KeyError("x")], ids=repr)
async def test_credentials_that_cannot_be_read_are_tried_again(watching, server, error, monkeypatch):
    await until(lambda: server.watched(WORKERS))
    api = watching.feed._client._api
    read, failures = api.update_params_for_auth, [error] * 3

    async def now_and_then(*given):
        if failures:
            raise failures.pop()
        await read(*given)

    monkeypatch.setattr(api, "update_params_for_auth", now_and_then)
    server.end_watches()
    await until(lambda: not failures and server.watched(WORKERS))
    assert watching.pauses[-3:] == [0.5, 1.0, 2.0]
    assert server.lists == 1, "what is known stays"
    failures.append(error)
    with pytest.raises(UnreachableError, match="no credentials"):
        await watching.feed._client.get(WORKERS)


async def test_an_object_that_cannot_be_read_is_left_out_and_the_others_are_known(watching, server):
    server.put(WORKERS, {**worker("odd"), "spec": {}})
    server.put(WORKERS, worker("a"))
    await until(lambda: watching.names == {"a"})
    await until(lambda: server.watched(WORKERS))
    server.put(WORKERS, {**worker("odder"), "spec": {"model": 7}}, "ADDED")
    server.put(WORKERS, worker("b"), "ADDED")
    await until(lambda: watching.names == {"a", "b"})


async def test_a_crd_that_is_not_there_yet_is_waited_for(server):
    async with server.running() as client:
        server.failures.extend([404, 404])
        watching = Watching(client)
        task = asyncio.create_task(watching.feed.run())
        await until(lambda: server.watched(WORKERS))
        assert watching.pauses == [0.5, 1.0]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_models_are_followed_as_workers_are(server):
    async with server.running() as client:
        models, room = Models(), WaitingRoom(Bounds())
        feed = feed_of_models(client, "ns", models, room.changed)
        server.put(MODELS, model("x"))
        task = asyncio.create_task(feed.run())
        await until(lambda: server.watched(MODELS))
        server.put(MODELS, model("y"), "ADDED")
        await until(lambda: [each.name for each in models.of("ns", "m")] == ["x", "y"])
        server.put(MODELS, model("x"), "DELETED")
        await until(lambda: [each.name for each in models.of("ns", "m")] == ["y"])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_those_who_wait_are_woken_by_what_the_watch_tells(server):
    async with server.running() as client:
        directory, room = Directory(), WaitingRoom(Bounds())
        feed = feed_of_workers(client, "ns", directory, room.changed)
        task = asyncio.create_task(feed.run())
        waiting = asyncio.create_task(room.wait(("ns", "m"), lambda: directory.choose("ns", "m", 0.0), 5))
        await until(lambda: server.watched(WORKERS))
        server.put(WORKERS, worker("a"), "ADDED")
        assert (await waiting).name == "a"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_feed_that_does_nothing_any_more_is_not_alive(server):
    async with server.running() as client:
        now = 0.0
        feed = feed_of_workers(client, "ns", Directory(), WaitingRoom(Bounds()).changed)
        feed._monotonic = lambda: now
        feed._moved = now
        assert feed.alive()
        now = 299.0
        assert feed.alive()
        now = 301.0
        assert not feed.alive()
