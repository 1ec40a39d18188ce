"""Requests on their way through the gateway, to workers that are real servers on loopback."""

import asyncio
import gc
import io
import socket
import threading
from collections.abc import Callable, Iterator

import orjson
import pytest

from modelpool_gateway import server, upstream
from modelpool_gateway.request import read_request
from modelpool_gateway.server import Leaving
from unit.modelpool_gateway.site import PATH, Site, Upstream, post, read_cut, serving, until

JSON = {"Content-Type": "application/json"}


async def test_a_request_goes_to_the_models_worker_and_its_answer_comes_back_as_it_is(client, url, one):
    status, body, headers = await post(client, url, headers={"Authorization": "Bearer secret", "X-Request-Id": "r1"})
    assert (status, body) == (200, {"by": "a"})
    assert headers["X-Own"] == "yes"
    (asked,) = one.asked
    assert asked["path"] == PATH
    assert orjson.loads(asked["body"]) == {"model": "m", "input": "x"}
    assert asked["headers"][b"x-request-id"] == b"r1"
    assert b"authorization" not in asked["headers"], "a client's key is the gateway's to read"


async def test_an_answer_that_is_there_as_a_whole_has_a_length_whatever_the_workers_had(client, url, one):
    """The worker's comes in chunks, and in one piece with its head."""
    _, body, headers = await post(client, url)
    assert int(headers["Content-Length"]) == len(orjson.dumps(body))
    assert "Transfer-Encoding" not in headers


async def test_a_client_that_knows_no_kept_connections_is_answered_and_left(url, one):
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = b'{"model": "m"}'
    writer.write(b"POST %s HTTP/1.0\r\ncontent-length: %d\r\n\r\n%s" % (PATH.encode(), len(body), body))
    head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert orjson.loads(answer) == {"by": "a"}
    writer.close()


KINDS = (Leaving, server.Connection, upstream.Connection)


@pytest.fixture
def alive() -> Iterator[Callable[[type], int]]:
    """How many objects of a type have been made since and are there, while nobody looks for circles.

    A search stops everything for as long as it takes. What other tests have left is not counted.
    """
    gc.collect()
    gc.disable()
    before = {id(each): each for each in gc.get_objects() if issubclass(type(each), KINDS)}
    # by its type: objects of other libraries that are asked for their class may warn
    yield lambda kind: sum(issubclass(type(each), kind) and id(each) not in before for each in gc.get_objects())
    gc.enable()


async def test_what_a_request_leaves_behind_goes_without_a_search_for_circles(client, url, one, alive):
    for _ in range(10):
        await post(client, url)
    assert alive(Leaving) <= 1, "the latest stays with its connection"


async def test_a_connection_that_is_closed_goes_without_a_search_for_circles(client, url, gateway, one, alive):
    for _ in range(3):
        await post(client, url, headers={"Connection": "close"})
    gateway.pool.close()
    await until(lambda: not alive(server.Connection) and not alive(upstream.Connection))


async def test_a_large_body_arrives_whole(client, url, one):
    text = "x" * (3 * 1024 * 1024)
    async with client.post(
        url + PATH, data=io.BytesIO(orjson.dumps({"model": "m", "input": text})), headers=JSON
    ) as answer:
        assert answer.status == 200
    assert orjson.loads(one.asked[0]["body"])["input"] == text


async def test_a_refusal_of_the_workers_is_passed_on_and_nobody_else_is_asked(client, url, gateway, one):
    one.behave = one.busy
    second = Upstream("b")
    async with serving(second) as address:
        gateway.show("b", "Loading", address)
        status, body, headers = await post(client, url)
    assert (status, headers["Retry-After"]) == (429, "3")
    assert body["error"]["message"] == "queue full"


async def test_one_that_is_being_evicted_is_left_for_another_without_the_client_noticing(client, url, gateway, one):
    one.behave = one.evicting
    second = Upstream("b")
    async with serving(second) as address:
        gateway.show("b", "Processing", address)
        for _ in range(3):
            status, body, _ = await post(client, url)
            assert (status, body) == (200, {"by": "b"})
        assert len(second.asked) == 3
        assert len(one.asked) <= 1, "it is asked no more once it has said so"


async def test_a_worker_that_is_not_there_any_more_is_left_for_another(client, url, gateway, one):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        gateway.show("z", "Idle", f"http://127.0.0.1:{taken.getsockname()[1]}")
        answers = [await post(client, url) for _ in range(8)]
    assert {status for status, *_ in answers} == {200}


async def test_a_worker_that_fails_again_and_again_is_left_alone_and_served_from_again_once_it_answers(
    client, url, gateway
):
    """Who comes meanwhile waits for the end of its pause, not for the end of his time."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        gateway.show("a", "Ready", f"http://127.0.0.1:{port}")
        for _ in range(3):
            assert (await post(client, url))[0] == 503
    upstream = Upstream()
    async with serving(upstream, port):
        answers = await asyncio.gather(*(post(client, url) for _ in range(2)))
    assert [status for status, *_ in answers] == [200, 200]


async def test_a_request_for_a_worker_that_loads_is_held_and_answered_when_it_is_ready(client, url, gateway):
    gateway.show("a", "Loading")
    upstream = Upstream()
    async with serving(upstream) as address:
        asking = asyncio.create_task(post(client, url))
        await until(lambda: len(gateway.room) == 1)
        gateway.show("a", "Ready", address)
        status, body, _ = await asking
    assert (status, body) == (200, {"by": "a"})


async def test_a_held_request_fails_at_once_with_the_workers_own_reason(client, url, gateway):
    gateway.show("a", "Loading")
    asking = asyncio.create_task(post(client, url))
    await until(lambda: len(gateway.room) == 1)
    gateway.show("a", "Failed", message="model.safetensors is cut short")
    status, body, headers = await asking
    assert status == 503
    assert body["error"]["code"] == "WhyFailed"
    assert "model.safetensors is cut short" in body["error"]["message"]
    assert headers["x-should-retry"] == "false"


async def test_held_requests_are_bounded(client, url, gateway):
    gateway.show("a", "Loading")
    held = [asyncio.create_task(post(client, url)) for _ in range(2)]
    await until(lambda: len(gateway.room) == 2)
    status, body, headers = await post(client, url)
    assert (status, body["error"]["code"], headers["Retry-After"]) == (429, "too_many_waiting", "10")
    gateway.show("a", "Failed")
    assert {status for status, *_ in await asyncio.gather(*held)} == {503}


async def test_a_held_client_that_leaves_gives_his_place_back(client, url, gateway):
    gateway.show("a", "Loading")
    asking = asyncio.create_task(post(client, url))
    await until(lambda: len(gateway.room) == 1)
    asking.cancel()
    await until(lambda: len(gateway.room) == 0)


async def test_no_request_is_held_for_ever(client):
    gateway = Site(hold_seconds=0.05)
    gateway.show("a", "Spawning")
    async with gateway.serving() as url:
        status, body, _ = await post(client, url)
    assert (status, body["error"]["code"]) == (504, "cold_start_timeout")


async def test_a_stream_passes_unbuffered(client, url, one):
    one.behave = one.stream
    async with client.post(url + PATH, json={"model": "m", "stream": True}) as answer:
        assert await answer.content.readany() == b"data: one\n\n"  # before the worker has written the second
        one.go_on.set()
        assert await answer.content.read() == b"data: two\n\n"
        assert answer.headers["Content-Type"] == "text/event-stream"


async def test_a_client_that_leaves_in_the_middle_of_a_stream_cancels_it_at_the_worker(client, url, gateway, one):
    one.behave = one.stream
    async with client.post(url + PATH, json={"model": "m", "stream": True}) as answer:
        await answer.content.readany()
        assert gateway.in_flight == [1]
        answer.close()
    async with asyncio.timeout(5):
        await one.left.wait()
    await until(lambda: gateway.in_flight == [0])


async def test_a_stream_that_breaks_says_so_and_is_not_begun_anew(client, url, one):
    one.behave = one.broken_stream
    async with client.post(url + PATH, json={"model": "m", "stream": True}) as answer:
        text = await read_cut(answer)
    assert text.startswith(b"data: one\n\ndata: {")
    assert orjson.loads(text.split(b"data: ")[2])["error"]["code"] == "worker_connection"
    assert len(one.asked) == 1


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "sentence"),
    [
        ("POST", PATH, b"no json", 400, "not JSON"),
        ("POST", PATH, b'{"model": "other"}', 404, "no model of this name"),
        ("GET", PATH, b"", 405, "POST"),
        ("POST", "/v1/lifecycle/evict", b"{}", 404, "no such path"),
        ("POST", "/v1/../metrics", b"{}", 404, "no such path"),
        ("POST", PATH, b"[" * (8 * 1024 * 1024 + 1), 413, "larger than"),
    ],
    ids=["no-json", "unknown-model", "method", "lifecycle", "dots", "large"],
)
async def test_what_is_refused_by_the_gateway_itself(client, url, one, method, path, body, status, sentence):
    async with client.request(method, url + path, data=io.BytesIO(body), headers=JSON) as answer:
        assert answer.status == status
        assert sentence in (await answer.json())["error"]["message"]
    assert one.asked == []


@pytest.mark.parametrize(("size", "beside"), [(100, False), (64 * 1024 + 1, True)], ids=["small", "large"])
async def test_a_large_body_of_any_kind_is_read_beside_the_event_loop(client, url, one, monkeypatch, size, beside):
    threads = []

    def read(*given):
        threads.append(threading.current_thread())
        return read_request(*given)

    monkeypatch.setattr("modelpool_gateway.proxy.read_request", read)
    body = b'{"model": "m", "input": "' + b"x" * size + b'"}'
    async with client.post(url + PATH, data=body, headers={"Content-Type": "application/json"}) as got:
        assert got.status == 200
    assert [each is not threading.main_thread() for each in threads] == [beside]
