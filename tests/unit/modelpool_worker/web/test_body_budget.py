"""All bodies together are bounded; one alone always fits."""

import httpx
import pytest

from modelpool_worker.errors import QueueFullError
from modelpool_worker.web.body_budget import BodyBudget


def test_one_request_alone_may_hold_more_than_the_budget_and_gives_all_of_it_back():
    budget = BodyBudget(10)
    with budget.hold() as held:
        held.take(8)
        held.take(8)
        assert budget.bytes == 16
    assert budget.bytes == 0


def test_a_second_one_is_told_to_come_again_and_holds_nothing_afterwards():
    budget = BodyBudget(10)
    with budget.hold() as first:
        first.take(6)
        with budget.hold() as second:
            second.take(4)
            with pytest.raises(QueueFullError) as refused:
                second.take(1)
        assert refused.value.headers["Retry-After"] == "1"
        assert budget.bytes == 6
        with budget.hold() as third:
            third.take(4)


@pytest.mark.slow
async def test_a_client_is_told_and_the_same_request_is_answered_once_there_is_room(speaking):
    long = {"model": "org/m", "prompt": "x" * 2000, "max_tokens": 1}
    async with speaking(max_bodies_bytes=4096) as (worker, url), httpx.AsyncClient(base_url=url, timeout=20) as http:
        worker.capability.gate.clear()
        first = http.stream("POST", "/v1/completions", json=long | {"prompt": "x" * 3000, "stream": True})
        async with first as answer:
            assert answer.status_code == 200
            refused = await http.post("/v1/completions", json=long)
            assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
            assert refused.json()["error"]["code"] == "queue_full"
            worker.capability.gate.set()
            await answer.aread()
        assert (await http.post("/v1/completions", json=long)).status_code == 200
