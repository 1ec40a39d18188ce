"""Which capability is asked at which path."""

import pytest

from modelpool_api import Capability
from modelpool_gateway.endpoints import PATHS, check_path
from modelpool_gateway.errors import GatewayError
from modelpool_worker.capabilities.registry import ENTRIES
from unit.modelpool_gateway.site import post


def taken_at(capability: str) -> set[str]:
    found = set()
    for path in PATHS:
        try:
            check_path(path, capability)
        except GatewayError:
            continue
        found.add(path)
    return found


@pytest.mark.parametrize("capability", Capability)
def test_the_gateway_knows_the_paths_that_the_workers_serve(capability):
    assert taken_at(capability) == set(ENTRIES[capability].endpoints)


def test_a_capability_that_is_not_known_yet_is_left_to_its_workers():
    assert taken_at("text-to-speech") == PATHS


async def test_no_worker_is_started_for_a_request_at_another_path(client, url, gateway):
    gateway.declare()
    async with client.post(f"{url}/v1/chat/completions", json={"model": "m"}) as got:
        assert (got.status, (await got.json())["error"]["code"]) == (400, "wrong_endpoint")
        assert "takes requests at /v1/embeddings" in (await got.json())["error"]["message"]
    assert gateway.notes.wanted == []


async def test_a_worker_that_serves_judges_for_itself(client, url, one, gateway):
    gateway.declare()
    assert (await post(client, url))[0] == 200
    async with client.post(f"{url}/v1/chat/completions", json={"model": "m"}) as got:
        assert got.status == 200
