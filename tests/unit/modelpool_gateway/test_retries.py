"""What a request survives, and what it is never tried again after."""

import asyncio

import orjson
import pytest

from modelpool_gateway.pool import Pool
from modelpool_gateway.request import Asked
from modelpool_gateway.ticket import Ticket
from modelpool_gateway.waiting_room import Bounds
from unit.modelpool_gateway.site import PATH, Site, Upstream, answer, post, read_cut, serving, until


async def test_an_address_that_is_anothers_by_now_is_left_for_the_models_own_worker(client, url, gateway, one):
    one.behave = one.anothers
    second = Upstream("b")
    async with serving(second) as address:
        gateway.show("b", "Ready", address)
        for _ in range(3):
            assert (await post(client, url))[:2] == (200, {"by": "b"})
    assert len(one.asked) <= 1


@pytest.mark.parametrize("code", ["not_found", "model_not_found"])
@pytest.mark.parametrize("who", [{}, {"x_modelpool_worker": "a"}], ids=["of-no-name", "of-its-name"])
async def test_a_404_of_the_workers_own_is_passed_on_and_says_nothing_of_the_worker(
    client, url, gateway, one, who, code
):
    """A client can have a worker say that it serves another model: that must not take the worker from all others."""

    async def nothing_there(scope, receive, send):
        await answer(send, 404, orjson.dumps({"error": {"message": "not here", "code": code}}), **who)

    one.behave = nothing_there
    status, body, headers = await post(client, url)
    assert (status, body["error"]["code"]) == (404, code)
    assert "X-Modelpool-Worker" not in headers
    one.behave = one.echo
    assert (await post(client, url))[0] == 200
    assert gateway.notes.retries == 0


@pytest.mark.parametrize("status", [400, 401, 404, 500, 503])
async def test_no_error_of_anothers_reaches_the_client(client, url, gateway, one, status):
    async def anothers(scope, receive, send):
        await answer(send, status, b"{}", x_modelpool_worker="another", x_modelpool_state="Loading")

    one.behave = anothers
    second = Upstream("b")
    async with serving(second) as address:
        asking = asyncio.create_task(post(client, url))
        gateway.declare()
        await until(lambda: len(gateway.room) == 1)
        gateway.show("b", "Ready", address)
        assert (await asking)[:2] == (200, {"by": "b"})
    assert len(one.asked) == 1


async def test_a_worker_that_loads_again_is_waited_for_and_asked_again(client, url, gateway, one):
    """Its container has been started anew, which the watch tells of only after the worker has refused."""

    async def loading(scope, receive, send):
        await answer(send, 503, b"{}", x_modelpool_state="Loading")

    one.behave = loading
    (worker,) = gateway.directory.of("ns", "m")
    gateway.declare()
    asking = asyncio.create_task(post(client, url))
    await until(lambda: len(gateway.room) == 1)
    assert len(one.asked) == 1, "it is not asked in a loop"
    gateway.show("a", "Loading", worker.endpoint)
    one.behave = one.echo
    gateway.show("a", "Ready", worker.endpoint)
    assert (await asking)[:2] == (200, {"by": "a"})
    assert gateway.notes.retries == 1


async def test_a_worker_that_loads_again_is_asked_again_though_the_watch_never_tells_of_it(client, url, gateway, one):
    """The operator is down: nobody writes what has become of the worker."""

    async def loading(scope, receive, send):
        await answer(send, 503, b"{}", x_modelpool_state="Loading")

    one.behave = loading
    gateway.declare()
    asking = asyncio.create_task(post(client, url))
    await until(lambda: len(gateway.room) == 1)
    one.behave = one.echo
    assert (await asking)[:2] == (200, {"by": "a"})
    assert len(one.asked) == 2


async def test_all_failures_of_a_worker_have_one_reminder_together_and_nobody_else_looks(client, gateway, url):
    """A worker dies with all that it had: what follows takes one look of each, not each one's look of all."""
    gateway.declare()
    gateway.show("b", "Loading")
    tickets = [held_ticket() for _ in range(100)]
    gateway.show("a", "Ready", "http://127.0.0.1:1")
    for ticket in tickets:
        await gateway.holding.worker_for(ticket)
    timers = []
    loop = asyncio.get_running_loop()
    (worker,) = [each for each in gateway.directory.of("ns", "m") if each.name == "a"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "call_later", lambda seconds, call, *given: timers.append((call, given)))
        for ticket in tickets:
            worker.breaker.failed(ticket.token, gateway.holding._monotonic())
            gateway.holding.release(ticket)
    assert len(timers) == 1
    assert gateway.in_flight == [0, 0]


def held_ticket() -> Ticket:
    return Ticket(("ns", "m"), Asked("m"), PATH, b"", b"", None, None, None)  # type: ignore[arg-type]


async def test_a_refusal_that_arrives_after_the_watch_has_told_of_it_does_not_count_for_the_next_life(
    client, url, gateway, one
):
    told = asyncio.Event()

    async def refuses_late(scope, receive, send):
        await told.wait()
        await answer(send, 503, b"{}", x_modelpool_state="Loading")

    one.behave = refuses_late
    (worker,) = gateway.directory.of("ns", "m")
    asking = asyncio.create_task(post(client, url))
    await until(lambda: one.asked)
    gateway.show("a", "Loading", worker.endpoint)
    told.set()
    await until(lambda: len(gateway.room) == 1)
    one.behave = one.echo
    gateway.show("a", "Ready", worker.endpoint)
    assert (await asking)[0] == 200


async def test_the_only_worker_is_tried_again_a_little_later_while_a_model_stands_behind_it(client, url, gateway, one):
    gateway.declare()

    async def cuts_once(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(cuts_once, "127.0.0.1", 0)
    (worker,) = gateway.directory.of("ns", "m")
    real = worker.endpoint
    worker.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    asking = asyncio.create_task(post(client, url))
    await until(lambda: len(gateway.room) == 1)
    worker.endpoint = real
    assert (await asking)[:2] == (200, {"by": "a"})
    server.close()
    await server.wait_closed()


async def test_a_worker_that_never_answers_is_tried_so_often_and_no_more(client, url, gateway, monkeypatch):
    monkeypatch.setattr("modelpool_gateway.holding._AGAIN_SECONDS", 0.01)
    connections = 0

    async def cuts(reader, writer):
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(cuts, "127.0.0.1", 0) as server:
        gateway.declare()
        gateway.show("a", "Ready", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        status, body, _ = await post(client, url)
    assert (status, body["error"]["code"]) == (502, "worker_connection")
    assert connections == 4


async def test_a_connection_that_the_worker_has_closed_meanwhile_costs_nothing(client, url, gateway):
    """The worker closes it in the instant in which the next request is sent: a new connection is made for it."""
    served = 0

    async def one_each(reader, writer):
        nonlocal served
        await reader.readuntil(b"\r\n\r\n")
        served += 1
        writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n{"by": "one"}'[:-1])
        await writer.drain()
        await reader.read(1)  # the next request: closed at its first byte
        writer.transport.abort()

    async with await asyncio.start_server(one_each, "127.0.0.1", 0) as server:
        gateway.show("a", "Ready", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        for _ in range(3):
            async with client.post(url + PATH, json={"model": "m"}) as got:
                assert got.status == 200
                await got.read()
    assert served == 3
    (worker,) = gateway.directory.of("ns", "m")
    assert worker.breaker.failures == 0
    assert gateway.notes.retries == 0


async def test_an_answer_that_breaks_off_is_cut_and_not_begun_anew(client, url, one):
    one.behave = one.broken_answer
    async with client.post(url + PATH, json={"model": "m"}) as got:
        assert got.status == 200
        assert await read_cut(got) == b"half of it"
    assert len(one.asked) == 1


async def test_a_worker_that_is_silent_for_too_long_is_given_up_and_nobody_else_is_asked(client):
    now = 0.0
    gateway = Site(pool=Pool(lambda: now, patience=60.0))
    first, second = Upstream("a"), Upstream("b")
    first.behave = first.when_told
    async with serving(first) as a, serving(second) as b, gateway.serving() as url:
        gateway.show("a", "Ready", a)
        asking = asyncio.create_task(post(client, url))
        await until(lambda: first.asked)
        gateway.show("b", "Ready", b)
        gateway.pool.sweep({a, b})
        now = 59.0
        gateway.pool.sweep({a, b})
        assert not asking.done()
        now = 61.0
        gateway.pool.sweep({a, b})
        status, body, _ = await asking
        await first.left.wait()
    assert (status, body["error"]["code"]) == (504, "worker_timeout")
    assert second.asked == []


async def test_what_the_worker_says_of_the_gateways_token_is_not_for_the_client(client, one, gateway, url):
    async def closed(scope, receive, send):
        await answer(send, 401, b"{}")

    one.behave = closed
    status, body, _ = await post(client, url)
    assert (status, body["error"]["code"]) == (502, "worker_unauthorized")


async def test_more_than_a_worker_gets_at_once_waits_for_a_place_and_all_are_answered(client):
    gateway = Site(most_in_flight=4, bounds=Bounds(per_model=100, in_all=100))
    upstream = Upstream()
    most = running = 0

    async def counted(scope, receive, send):
        nonlocal most, running
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        await upstream.echo(scope, receive, send)

    upstream.behave = counted
    async with serving(upstream) as address, gateway.serving() as url:
        gateway.show("a", "Loading")
        asking = [asyncio.create_task(post(client, url)) for _ in range(60)]
        await until(lambda: len(gateway.room) == 60)
        gateway.show("a", "Ready", address)
        answers = await asyncio.gather(*asking)
    assert [status for status, *_ in answers] == [200] * 60
    assert len(upstream.asked) == 60
    assert most <= 4
    assert gateway.in_flight == [0]


async def test_a_full_workers_sibling_is_asked_before_the_client_hears_of_it(client, url, gateway, one):
    one.behave = one.busy
    second = Upstream("b")
    async with serving(second) as address:
        gateway.show("b", "Ready", address)
        assert [(await post(client, url))[:2] for _ in range(4)] == [(200, {"by": "b"})] * 4
        second.behave = second.busy
        one.asked.clear()
        second.asked.clear()
        status, body, headers = await post(client, url)
    assert (status, body["error"]["message"], headers["Retry-After"]) == (429, "queue full", "3")
    assert (len(one.asked), len(second.asked)) == (1, 1), "each once"
    assert gateway.in_flight == [0, 0]


async def test_the_only_worker_that_is_full_is_not_asked_again_for_one_that_was_not_held(client, url, gateway, one):
    gateway.declare()
    one.behave = one.busy
    assert (await post(client, url))[0] == 429
    assert len(one.asked) == 1


@pytest.mark.parametrize("declared", [True, False], ids=["model", "worker-alone"])
@pytest.mark.parametrize(("refusals", "status"), [(3, 200), (100, 429)], ids=["for-a-while", "for-ever"])
async def test_those_who_were_held_and_let_go_together_come_again_a_few_times(
    client, url, gateway, monkeypatch, refusals, status, declared
):
    """More were held, by all gateways, than the worker takes at once."""
    monkeypatch.setattr("modelpool_gateway.holding._AGAIN_SECONDS", 0.01)
    upstream = Upstream()

    async def full_at_first(scope, receive, send):
        await (upstream.busy if len(upstream.asked) <= refusals else upstream.echo)(scope, receive, send)

    upstream.behave = full_at_first
    if declared:
        gateway.declare()
    gateway.show("a", "Loading")
    async with serving(upstream) as address:
        asking = asyncio.create_task(post(client, url))
        await until(lambda: len(gateway.room) == 1)
        gateway.show("a", "Ready", address)
        assert (await asking)[0] == status
    assert len(upstream.asked) == min(refusals, 8) + 1
    (worker,) = gateway.directory.of("ns", "m")
    assert worker.breaker.failures == 0


async def test_who_has_no_time_left_hears_that_the_worker_is_full(client):
    gateway, upstream = Site(hold_seconds=0.5), Upstream()
    upstream.behave = upstream.busy
    gateway.show("a", "Loading")
    async with serving(upstream) as address, gateway.serving() as url:
        asking = asyncio.create_task(post(client, url))
        await until(lambda: len(gateway.room) == 1)
        gateway.show("a", "Ready", address)
        assert (await asking)[0] == 429
    assert len(upstream.asked) == 1


@pytest.mark.parametrize(("seconds", "kept"), [(0, 0), (-1, -1), ("5m", 300), (0.2, 1)], ids=repr)
async def test_keep_alive_is_told_of_once_the_request_is_answered(client, url, gateway, one, seconds, kept):
    gateway.declare()
    async with client.post(url + PATH, json={"model": "m", "keep_alive": seconds}) as got:
        assert got.status == 200
    assert gateway.notes.kept == [("m-object", kept)]
    assert orjson.loads(one.asked[0]["body"])["keep_alive"] == seconds


async def test_keep_alive_of_a_request_that_was_refused_is_not_told(client, url, gateway, one):
    gateway.declare()
    one.behave = one.busy
    async with client.post(url + PATH, json={"model": "m", "keep_alive": -1}) as got:
        assert got.status == 429
    assert gateway.notes.kept == []
