"""Requests that are held for a worker: what is asked for, what they are told, and how it ends."""

import asyncio

import orjson
import pytest

from unit.modelpool_gateway.site import PATH, Site, Upstream, answer, post, read_cut, serving, until

PROGRESS = {"X-Modelpool-Progress": "true"}
STREAM = {"model": "m", "stream": True}
CHAT = "/v1/chat/completions"


async def test_a_cold_model_is_asked_for_and_the_request_answered_when_its_worker_is_ready(client, url, gateway):
    gateway.declare()
    upstream = Upstream()
    async with serving(upstream) as address:
        asking = asyncio.create_task(post(client, url))
        await until(lambda: len(gateway.room) == 1)
        assert set(gateway.notes.wanted) == {"m-object"}
        assert [model.name for model in gateway.holding.wanted()] == ["m-object"]
        gateway.show("a", "Spawning")
        gateway.show("a", "Loading", address)
        gateway.show("a", "Ready", address)
        assert (await asking)[:2] == (200, {"by": "a"})
    assert list(gateway.holding.wanted()) == []


async def test_a_template_that_is_replaced_is_known_whichever_is_seen_first(client, url, gateway):
    upstreams = {"old": Upstream("old"), "new": Upstream("new")}
    async with serving(upstreams["old"]) as old, serving(upstreams["new"]) as new:
        gateway.declare(template="1")
        gateway.show("old", "Ready", old, template="1")
        gateway.show("new", "Ready", new, template="2")
        assert (await post(client, url))[1] == {"by": "old"}
        gateway.declare(template="2")
        assert [(await post(client, url))[1]["by"] for _ in range(3)] == ["new"] * 3


async def test_a_model_that_serves_is_not_asked_for(client, url, gateway, one):
    gateway.declare()
    assert (await post(client, url))[0] == 200
    assert gateway.notes.wanted == []


async def test_when_to_come_again_is_what_the_latest_cold_start_has_taken(client):
    gateway = Site(hold_seconds=0.05)
    gateway.declare(coldStartSeconds={"total": 41.2})
    gateway.show("a", "Loading", reason="ContainerStarted")
    async with gateway.serving() as url:
        status, body, headers = await post(client, url)
    assert (status, headers["Retry-After"]) == (504, "42")
    assert "Loading (ContainerStarted)" in body["error"]["message"]


async def test_a_held_request_hears_of_a_pause_between_failures_at_once(client, url, gateway):
    gateway.declare()
    asking = asyncio.create_task(post(client, url))
    await until(lambda: len(gateway.room) == 1)
    gateway.declare(backOff={"reason": "OOMKilled", "message": "137", "retryTime": "2026-01-02T03:04:12Z"})
    status, body, headers = await asking
    assert (status, body["error"]["code"], headers["Retry-After"]) == (503, "OOMKilled", "7")


async def test_who_wants_to_know_is_told_what_the_stream_waits_for(client, url, gateway):
    gateway.declare("vision")
    upstream = Upstream()
    upstream.behave = upstream.stream
    async with serving(upstream) as address, client.post(url + CHAT, json=STREAM, headers=PROGRESS) as got:
        assert (got.status, got.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
        assert await got.content.readuntil(b"\n\n") == ": waiting — for a worker to be started\n\n".encode()
        gateway.show("a", "Loading", address, reason="<script>")
        comment = ": waiting — Loading\n\n".encode()
        while await got.content.readuntil(b"\n\n") != comment:
            pass
        gateway.show("a", "Ready", address)
        upstream.go_on.set()
        rest = await got.content.read()
    assert rest.replace(comment, b"") == b"data: one\n\ndata: two\n\n"


async def test_a_failure_after_that_is_an_event_and_the_stream_is_cut(client, url, gateway):
    gateway.declare("vision")
    gateway.show("a", "Loading")
    async with client.post(url + CHAT, json=STREAM, headers=PROGRESS) as got:
        await got.content.readuntil(b"\n\n")
        gateway.show("a", "Failed", message="no such file")
        gateway.declare("vision", backOff={"reason": "ModelLoadFailed", "message": "no such file"})
        text = await read_cut(got)
    error = orjson.loads(text.split(b"data: ")[1])["error"]
    assert (error["code"], "no such file" in error["message"]) == ("ModelLoadFailed", True)
    assert gateway.notes.answers == [("m", 503)]


async def test_what_the_worker_refuses_after_that_is_an_event_with_its_own_words(client, url, gateway):
    upstream = Upstream()

    async def refuses(scope, receive, send):
        await answer(send, 400, b'{"error": {"message": "max_tokens is too large", "code": null}}')

    upstream.behave = refuses
    gateway.show("a", "Loading")
    async with serving(upstream) as address, client.post(url + CHAT, json=STREAM, headers=PROGRESS) as got:
        await got.content.readuntil(b"\n\n")
        gateway.show("a", "Ready", address)
        text = await read_cut(got)
    assert orjson.loads(text.split(b"data: ")[1])["error"]["message"] == "max_tokens is too large"


async def test_a_refusal_that_breaks_off_after_that_is_an_event_and_no_second_try(client, url, gateway):
    upstream = Upstream()

    async def breaks(scope, receive, send):
        await send({"type": "http.response.start", "status": 400, "headers": [(b"content-length", b"1000")]})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})

    upstream.behave = breaks
    gateway.show("a", "Loading")
    async with serving(upstream) as address, client.post(url + CHAT, json=STREAM, headers=PROGRESS) as got:
        await got.content.readuntil(b"\n\n")
        gateway.show("a", "Ready", address)
        text = await read_cut(got)
    assert orjson.loads(text.split(b"data: ")[1])["error"]["code"] == "worker_error"
    assert len(upstream.asked) == 1


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        pytest.param(CHAT, {"model": "m"}, PROGRESS, id="no-stream"),
        pytest.param(CHAT, STREAM, {}, id="not-wanted"),
        pytest.param(CHAT, STREAM, {"X-Modelpool-Progress": "no"}, id="wanted-by-another-word"),
        pytest.param(PATH, STREAM, PROGRESS, id="where-nothing-streams"),
    ],
)
async def test_nobody_else_gets_a_head_before_it_is_known_how_it_ends(client, url, gateway, path, body, headers):
    gateway.show("a", "Loading")
    asking = asyncio.create_task(client.post(url + path, json=body, headers=headers))
    await until(lambda: len(gateway.room) == 1)
    gateway.show("a", "Failed")
    async with await asking as got:
        assert got.status == 503


async def test_a_gateway_that_closes_tells_those_who_wait_and_those_who_come_and_finishes_what_runs(
    client, url, gateway, one
):
    one.behave = one.when_told
    running = asyncio.create_task(post(client, url))
    await until(lambda: one.asked)
    (worker,) = gateway.directory.of("ns", "m")
    gateway.show("a", "Loading", worker.endpoint)
    held = asyncio.create_task(post(client, url))
    await until(lambda: len(gateway.room) == 1)
    gateway.proxy.close()
    for status, body, headers in (await held, await post(client, url)):
        assert (status, body["error"]["code"], headers["Retry-After"]) == (503, "shutting_down", "1")
    one.go_on.set()
    assert (await running)[0] == 200


async def test_bodies_are_held_as_long_as_they_may_be_needed(client, url, gateway, one):
    one.behave = one.stream
    async with client.post(url + PATH, json={"model": "m", "input": "x" * 1000}) as got:
        await got.content.readuntil(b"\n\n")
        assert gateway.bodies.held == 0, "the answer has begun: nobody else will be asked"
        one.go_on.set()
        await got.read()
    gateway.show("b", "Loading")
    (worker,) = [each for each in gateway.directory.of("ns", "m") if each.name == "a"]
    gateway.show("a", "Evicting", worker.endpoint)
    asking = asyncio.create_task(post(client, url))
    await until(lambda: len(gateway.room) == 1)
    assert gateway.bodies.held > 0
    gateway.show("b", "Failed")
    await asking
    assert gateway.bodies.held == 0
