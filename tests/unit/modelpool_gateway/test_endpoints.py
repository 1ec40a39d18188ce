"""Which capability is asked at which path."""

import pytest

from modelpool_api import Capability
from modelpool_gateway.endpoints import PATHS, check, takes
from modelpool_gateway.errors import GatewayError
from modelpool_worker.capabilities.registry import ENTRIES
from unit.modelpool_gateway.site import Upstream, serving

FORM = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--b--\r\n'


def taken_at(capability: str, *, upload: bool = False) -> set[str]:
    found = set()
    for path in PATHS:
        try:
            check([capability], path, upload=upload)
        except GatewayError:
            continue
        found.add(path)
    assert found == {path for path in PATHS if takes(capability, path, upload=upload)}
    return found


@pytest.mark.parametrize("capability", Capability)
def test_the_gateway_knows_the_paths_that_the_workers_serve(capability):
    assert taken_at(capability) == set(ENTRIES[capability].endpoints)


def test_forms_and_pictures_are_for_those_who_take_them():
    assert {each for each in Capability if taken_at(each, upload=True)} == {Capability.IMAGE_EMBEDDING}


@pytest.mark.parametrize("upload", [False, True])
def test_a_capability_that_is_not_known_yet_is_left_to_its_workers(upload):
    assert taken_at("text-to-speech", upload=upload) == PATHS
    assert taken_at("", upload=upload) == PATHS


def test_what_one_of_several_takes_is_no_error():
    check(["text-embedding", "image-embedding"], "/v1/embeddings", upload=True)
    check(["vision", "text-to-text"], "/v1/completions", upload=False)
    check([], "/v1/completions", upload=False)


REFUSED = [
    pytest.param(
        "/v1/chat/completions", {"json": {"model": "m"}}, 400, "wrong_endpoint", "at /v1/embeddings", id="path"
    ),
    pytest.param(
        "/v1/embeddings?model=m",
        {"data": b'{"model": "x"}', "headers": {"Content-Type": "image/png"}},
        415,
        "unsupported_content",
        "takes application/json only",
        id="picture",
    ),
    pytest.param(
        "/v1/embeddings",
        {"data": FORM, "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
        415,
        "unsupported_content",
        "takes application/json only",
        id="form",
    ),
]


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize(("path", "request_", "status", "code", "sentence"), REFUSED)
async def test_what_no_worker_of_the_model_takes_is_refused_alike_whether_one_is_there(
    client, url, gateway, warm, path, request_, status, code, sentence
):
    gateway.declare()
    upstream = Upstream()
    async with serving(upstream) as address:
        if warm:
            gateway.show("a", "Ready", address)
        async with client.post(url + path, **request_) as got:
            error = (await got.json())["error"]
    assert (got.status, error["code"], sentence in error["message"]) == (status, code, True)
    assert upstream.asked == []
    assert gateway.notes.wanted == []


async def test_a_worker_of_a_capability_that_is_not_known_yet_judges_for_itself(client, url, gateway):
    gateway.declare("text-to-speech")
    upstream = Upstream()
    async with serving(upstream) as address:
        gateway.show("a", "Ready", address)
        async with client.post(f"{url}/v1/chat/completions", json={"model": "m"}) as got:
            assert got.status == 200
