"""Things that happen in the same instant: each in its own order, without any chance in it."""

import asyncio

import pytest

from modelpool_gateway.errors import ClientLeftError
from modelpool_gateway.upstream import UpstreamError
from modelpool_gateway.waiting_room import Bounds, WaitedTooLongError
from unit.modelpool_gateway.site import PATH, Site, Upstream, answer, post, serving, until

#: What a client sends; it speaks the protocol itself, so that the test says when it leaves.
REQUEST = (
    b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 13\r\n\r\n"
    b'{"model":"m"}'
)


async def asking(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client that has asked and does not read yet."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(REQUEST)
    await writer.drain()
    return reader, writer


class Steps:
    """Has something happen right before or right after a guest's look finds nothing: between look and wait."""

    def __init__(self, gateway: Site) -> None:
        self._gateway = gateway
        self._look = gateway.holding._look
        self.after_look = lambda: None
        gateway.holding._look = self.look

    def look(self, ticket):
        found = self._look(ticket)
        happen, self.after_look = self.after_look, lambda: None
        happen()
        return found


async def test_a_worker_that_turns_ready_between_the_look_and_the_wait_is_found(client, gateway, url):
    """There is no instant in which a request has looked in vain and is not among those who are told."""
    gateway.show("a", "Loading")
    upstream = Upstream()
    async with serving(upstream) as address:
        Steps(gateway).after_look = lambda: gateway.show("a", "Ready", address)
        async with asyncio.timeout(5):
            assert (await post(client, url))[:2] == (200, {"by": "a"})
    assert gateway.in_flight == [0]


async def test_all_who_wait_are_served_by_the_same_news_and_each_once(client):
    gateway = Site()
    upstream = Upstream()
    async with serving(upstream) as address, gateway.serving() as url:
        gateway.show("a", "Loading")
        waiting = [asyncio.create_task(post(client, url)) for _ in range(2)]
        await until(lambda: len(gateway.room) == 2)
        gateway.show("a", "Ready", address)
        gateway.show("a", "Processing", address)  # the next news comes before anybody has gone on
        assert [status for status, *_ in await asyncio.gather(*waiting)] == [200, 200]
    assert len(upstream.asked) == 2


async def test_a_worker_that_turns_evicting_while_the_request_is_on_its_way_loses_nothing(client, gateway, url, one):
    """The worker has decided; the watch tells of it at once, before the refusal arrives."""
    second = Upstream("b")

    async def decides(scope, receive, send):
        gateway.show("a", "Evicting")
        await answer(send, 503, b"{}", x_modelpool_state="Evicting")

    one.behave = decides
    async with serving(second) as address:
        gateway.show("b", "Loading")
        waiting = asyncio.create_task(post(client, url))
        await until(lambda: len(gateway.room) == 1)
        gateway.show("b", "Ready", address)
        assert (await waiting)[:2] == (200, {"by": "b"})
    assert (len(one.asked), len(second.asked)) == (1, 1)


async def test_a_worker_that_turns_evicting_after_it_was_chosen_and_before_it_is_asked_loses_nothing(
    client, gateway, url, one
):
    """A held request has been given its place; in the same instant the worker goes."""
    one.behave = one.evicting
    (worker,) = gateway.directory.of("ns", "m")
    address = worker.endpoint
    gateway.show("a", "Loading", address)
    second = Upstream("b")
    async with serving(second) as other:
        waiting = asyncio.create_task(post(client, url))
        await until(lambda: len(gateway.room) == 1)
        gateway.show("a", "Ready", address)
        gateway.show("a", "Evicting", address)
        gateway.show("b", "Ready", other)
        assert (await waiting)[:2] == (200, {"by": "b"})
    assert sorted(gateway.in_flight) == [0, 0]


async def test_an_answer_that_has_begun_when_the_worker_turns_evicting_is_finished_there(client, gateway, url, one):
    one.behave = one.stream
    async with client.post(url + PATH, json={"model": "m", "stream": True}) as got:
        assert await got.content.readuntil(b"\n\n") == b"data: one\n\n"
        gateway.show("a", "Evicting")
        one.go_on.set()
        assert await got.content.read() == b"data: two\n\n"


async def test_a_client_that_leaves_while_held_frees_its_place_and_nothing_is_sent(gateway, url):
    upstream = Upstream()
    async with serving(upstream) as address:
        gateway.show("a", "Loading")
        _, writer = await asking(url)
        await until(lambda: len(gateway.room) == 1)
        writer.transport.abort()
        await until(lambda: len(gateway.room) == 0)
        gateway.show("a", "Ready", address)
        await until(lambda: gateway.notes.answers == [("m", 0)])
    assert upstream.asked == []
    assert gateway.in_flight == [0]
    assert gateway.bodies.held == 0


@pytest.mark.parametrize("order", ["left-then-ready", "ready-then-left"])
async def test_a_client_that_leaves_in_the_instant_its_worker_is_ready_gives_the_place_back(
    client, gateway, url, order, monkeypatch
):
    """Both are known before the request's task has gone on."""
    tickets = []
    admitted = gateway.proxy._admitted

    async def remember(scope, receive, send):
        tickets.append(await admitted(scope, receive, send))
        return tickets[-1]

    monkeypatch.setattr(gateway.proxy, "_admitted", remember)
    upstream = Upstream()
    async with serving(upstream) as address:
        gateway.show("a", "Loading")
        _, writer = await asking(url)
        await until(lambda: len(gateway.room) == 1)
        happen = [tickets[0].leaving.happened, lambda: gateway.show("a", "Ready", address)]
        for each in happen if order == "left-then-ready" else reversed(happen):
            each()
        await until(lambda: gateway.notes.answers == [("m", 0)])
        assert gateway.in_flight == [0]
        assert upstream.asked == []
        writer.close()
        assert (await post(client, url))[0] == 200, "the place is another's now"


async def test_a_worker_that_is_ready_in_the_instant_the_time_is_over_keeps_no_place_for_it(
    client, gateway, url, monkeypatch
):
    """Found, and in the same turn of the loop given up."""
    upstream = Upstream()
    async with serving(upstream) as address:
        gateway.show("a", "Loading")

        async def found_too_late(key, look, seconds, again):
            gateway.show("a", "Ready", address)
            assert look() is not None
            raise WaitedTooLongError

        monkeypatch.setattr(gateway.room, "wait", found_too_late)
        assert (await post(client, url))[0] == 504
        assert gateway.in_flight == [0]
    assert upstream.asked == []


async def test_a_client_that_leaves_while_the_worker_is_being_connected_to_sends_nothing(gateway, url, monkeypatch):
    connecting, left = asyncio.Event(), asyncio.Event()

    async def never(endpoint, *, fresh=False):
        connecting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            left.set()
            raise

    monkeypatch.setattr(gateway.pool, "take", never)
    gateway.show("a", "Ready", "http://127.0.0.1:1")
    _, writer = await asking(url)
    async with asyncio.timeout(5):
        await connecting.wait()
        assert gateway.in_flight == [1]
        writer.transport.abort()
        await left.wait()
    await until(lambda: gateway.in_flight == [0])
    (worker,) = gateway.directory.of("ns", "m")
    assert worker.breaker.failures == 0, "the client has left; that says nothing of the worker"


async def test_a_client_that_leaves_while_it_sends_holds_nothing(gateway, url, one):
    host, port = url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(REQUEST[:-5])
    await until(lambda: gateway.bodies.held)
    writer.transport.abort()
    await until(lambda: gateway.notes.answers == [("", 0)])
    assert gateway.bodies.held == 0
    assert one.asked == []


async def test_the_end_of_a_trial_lets_those_go_on_who_wait_for_it(client, gateway, url, one):
    """A breaker is half-open: one request is on trial, the next waits for how that ends."""
    (worker,) = gateway.directory.of("ns", "m")
    for _ in range(3):
        worker.breaker.failed(worker.breaker.began(), -100.0)  # long ago: its pause is over
    one.behave = one.when_told
    first = asyncio.create_task(post(client, url))
    await until(lambda: one.asked)
    second = asyncio.create_task(post(client, url))
    await until(lambda: len(gateway.room) == 1)
    one.go_on.set()
    assert [status for status, *_ in await asyncio.gather(first, second)] == [200, 200]


async def test_when_a_trial_begins_to_be_answered_all_who_wait_go_on(client):
    """Its answer is a long one: nobody waits for the end of it, and there is more than the one place that it had."""
    gateway, upstream, told = Site(bounds=Bounds(per_model=20, in_all=20)), Upstream(), asyncio.Event()

    async def begins_when_told(scope, receive, send):
        await told.wait()
        await upstream.stream(scope, receive, send)

    upstream.behave = begins_when_told
    async with serving(upstream) as address, gateway.serving() as url:
        gateway.show("a", "Ready", address)
        (worker,) = gateway.directory.of("ns", "m")
        for _ in range(3):
            worker.breaker.failed(worker.breaker.began(), -100.0)
        asking = [asyncio.create_task(client.post(url + PATH, json={"model": "m"})) for _ in range(11)]
        await until(lambda: len(gateway.room) == 10 and upstream.asked)
        assert len(upstream.asked) == 1
        told.set()
        answers = await asyncio.gather(*asking)
        assert [each.status for each in answers] == [200] * 11
        upstream.go_on.set()
        for each in answers:
            await each.read()


def test_errors_of_clients_and_of_workers_are_never_taken_for_each_other():
    assert not issubclass(ClientLeftError, UpstreamError)
    assert not issubclass(UpstreamError, ClientLeftError)
