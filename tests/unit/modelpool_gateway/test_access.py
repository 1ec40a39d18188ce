"""Who may ask for what, and what of a request and of an answer is passed on."""

import asyncio

import pytest

from modelpool_gateway.errors import GatewayError
from modelpool_gateway.headers import answer_headers, check_query, read_head, request_head
from modelpool_gateway.keys import ApiKeys
from unit.modelpool_gateway.site import PATH, Site, Upstream, post, serving

KEY = "sk-team-a-0123456789"
LIMITED = "sk-team-b-0123456789"


@pytest.fixture
async def guarded(tmp_path, client):
    """Posts to a gateway with two keys, one of them for models of other names than m."""
    (tmp_path / "a").write_text(KEY)
    (tmp_path / "b").write_text(f'{{"key": "{LIMITED}", "models": ["llama-*"]}}')
    gateway, upstream = Site(keys=ApiKeys(tmp_path)), Upstream()
    async with serving(upstream) as address, gateway.serving() as url:
        gateway.show("a", "Ready", address)

        async def ask(model: str = "m", **headers: str):
            status, body, got = await post(client, url, model, headers=headers)
            return status, (body.get("error") or {}).get("code"), got, upstream

        yield ask


async def test_a_key_opens_the_models_it_is_for_and_never_reaches_the_worker(guarded):
    status, _, _, upstream = await guarded(Authorization=f"Bearer {KEY}")
    assert status == 200
    assert not any(KEY.encode() in value for value in upstream.asked[0]["headers"].values())


REFUSED = [
    pytest.param({}, "m", 401, "invalid_api_key", id="no-key"),
    pytest.param({"Authorization": "Bearer sk-unknown-0123456789"}, "m", 401, "invalid_api_key", id="unknown-key"),
    pytest.param({"Authorization": KEY}, "m", 401, "invalid_api_key", id="no-scheme"),
    pytest.param({"Authorization": f"Bearer {LIMITED}"}, "m", 403, "model_not_allowed", id="another-model"),
    pytest.param({"Authorization": f"Bearer {LIMITED}"}, "x", 403, "model_not_allowed", id="whether-there-is-one"),
    pytest.param({"Authorization": f"Bearer {LIMITED}"}, "llama-9", 404, "model_not_found", id="allowed-and-unknown"),
]


@pytest.mark.parametrize(("headers", "model", "status", "code"), REFUSED)
async def test_others_are_refused_before_anything_is_asked(guarded, headers, model, status, code):
    got = await guarded(model, **headers)
    assert got[:2] == (status, code)
    assert got[3].asked == []
    assert ("WWW-Authenticate" in got[2]) is (status == 401)


async def test_the_hop_to_the_worker_carries_the_token_of_its_pool(client):
    gateway, upstream = Site(token_of={"gpu": "t0ken"}.get), Upstream()
    async with serving(upstream) as address, gateway.serving() as url:
        gateway.show("a", "Ready", address, pool="gpu")
        await post(client, url, headers={"Authorization": "Bearer mine"})
        gateway.show("a", "Ready", address, pool="cpu")
        gateway.show("a", "Evicting")
        gateway.show("b", "Ready", address, pool="cpu")
        await post(client, url, headers={"Authorization": "Bearer mine"})
    seen = [asked["headers"].get(b"authorization") for asked in upstream.asked]
    assert seen == [b"Bearer t0ken", None]


async def test_a_picture_is_passed_on_with_its_query_and_type(client, gateway, url, one):
    headers = {"Content-Type": "image/png"}
    async with client.post(url + PATH + "?model=m&dimensions=8", data=b"\x89PNG", headers=headers) as got:
        assert got.status == 200
    (asked,) = one.asked
    assert (asked["query"], asked["body"]) == (b"model=m&dimensions=8", b"\x89PNG")
    assert asked["headers"][b"content-type"] == b"image/png"


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        pytest.param(b"content-length: 9000000", 413, "body_too_large", id="declared-too-large"),
        pytest.param(b"", 411, "length_required", id="no-length"),
        pytest.param(b"transfer-encoding: gzip, chunked", 411, "length_required", id="another-coding"),
        pytest.param(b"content-length: 2\r\ncontent-encoding: gzip", 415, "compressed_body", id="compressed"),
        pytest.param(b"content-length: 2\r\ncontent-type: text/plain", 415, "unsupported_content", id="text"),
        pytest.param(b"content-length: 9", 408, "body_timeout", id="late"),
    ],
)
async def test_bodies_that_are_refused_are_answered(url, one, head, status, code):
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\n" + head + b"\r\n\r\n" + (b"{}" if b"length" in head else b"")
    )
    first = await reader.readline()
    assert first.startswith(f"HTTP/1.1 {status} ".encode())
    assert code.encode() in await reader.readuntil(b"}}")
    writer.close()
    assert one.asked == []


def test_a_requests_head_keeps_what_is_the_workers_and_drops_what_is_the_connections_or_the_clients_own():
    head = read_head(
        [
            (b"host", b"gateway"),
            (b"content-type", b"application/json"),
            (b"content-length", b"12"),
            (b"authorization", b"Bearer x"),
            (b"cookie", b"a=b"),
            (b"x-api-key", b"secret"),
            (b"connection", b"keep-alive, X-Mine"),
            (b"x-mine", b"1"),
            (b"te", b"trailers"),
            (b"expect", b"100-continue"),
            (b"x-modelpool-state", b"Evicting"),
            (b"x-modelpool-progress", b"True"),
            (b"x-request-id", b"r1"),
        ]
    )
    assert (head.content_type, head.length, head.authorization) == ("application/json", b"12", "Bearer x")
    assert head.progress
    assert head.lines == b"content-type: application/json\r\nx-request-id: r1\r\n"


def test_a_body_of_two_types_is_refused_even_where_one_is_empty():
    for first in (b"", b"image/png"):
        with pytest.raises(GatewayError, match="one Content-Type"):
            read_head([(b"content-type", first), (b"content-type", b"application/json"), (b"content-length", b"2")])


def test_which_worker_has_answered_is_not_told():
    told = [
        (b"content-type", b"application/json"),
        (b"x-modelpool-worker", b"uid"),
        (b"connection", b"x-own"),
        (b"x-own", b"1"),
    ]
    assert answer_headers(told[:2]) == told[:1]
    assert answer_headers(told) == told[:1]


def test_the_head_for_the_worker_is_written_anew():
    written = request_head("/v1/embeddings", b"model=m", "http://10.0.0.1:8080", 3, "t", b"a: b\r\n")
    assert written == (
        b"POST /v1/embeddings?model=m HTTP/1.1\r\nhost: 10.0.0.1:8080\r\ncontent-length: 3\r\n"
        b"authorization: Bearer t\r\na: b\r\n\r\n"
    )


@pytest.mark.parametrize("query", [b"a b", b"a\xff", b"a\r\nx: y"], ids=repr)
def test_a_query_that_could_break_a_head_is_refused(query):
    with pytest.raises(GatewayError, match="printable ASCII"):
        check_query(query)


def test_an_answers_head_keeps_all_but_what_is_the_connections():
    headers = [
        (b"content-type", b"application/json"),
        (b"connection", b"close, x-hop"),
        (b"x-hop", b"1"),
        (b"transfer-encoding", b"chunked"),
        (b"retry-after", b"3"),
    ]
    assert answer_headers(headers) == [(b"content-type", b"application/json"), (b"retry-after", b"3")]
