"""The lifecycle port: who may ask, what is answered, and when."""

import asyncio

import httpx
import pytest

from modelpool_api import Pong

AUTH = {"Authorization": "Bearer sekret"}


async def ask(worker, path="/v1/lifecycle", method="GET", headers=AUTH, **arguments):
    transport = httpx.ASGITransport(app=worker.lifecycle, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://worker") as http:
        return await http.request(method, path, headers=headers, **arguments)


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "sekret"}, {"Authorization": "Bearer"}, {"Authorization": "Bearer sekret2"}],
    ids=["none", "no scheme", "empty", "wrong"],
)
@pytest.mark.parametrize("path", ["/v1/lifecycle", "/v1/lifecycle/evict", "/nowhere"])
async def test_nobody_without_the_token_gets_anything(ready, headers, path):
    answer = await ask(ready, path, "POST", headers)
    assert answer.status_code == 401
    assert "sekret" not in answer.text


async def test_two_authorization_headers_are_none(ready):
    assert (await ask(ready, headers=[("Authorization", "Bearer sekret")] * 2)).status_code == 401


async def test_without_a_token_file_nobody_is_let_in(ready):
    ready.settings.token_file.unlink()
    assert (await ask(ready)).status_code == 401


async def test_a_pong_parses_as_the_operator_parses_it(ready):
    pong = Pong.model_validate_json((await ask(ready)).content)
    assert (pong.worker_id, pong.boot_id, str(pong.state), pong.seq) == ("uid", "boot", "Ready", 1)
    assert pong.device == "cpu"
    assert pong.memory is not None
    assert pong.memory.resident_mib > 0
    assert set(pong.phases) == {"import", "fetch", "load", "warm_up"}


async def test_idle_after_changes_the_idle_timeout(ready):
    await ask(ready, params={"idle_after": "77"})
    assert ready.machine.idle_timeout == 77


async def test_a_long_poll_waits_for_the_next_move(ready):
    poll = asyncio.create_task(ask(ready, params={"after": "boot:1", "wait": "60"}))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not poll.done()
    ready.machine.admit()
    assert (await asyncio.wait_for(poll, 10)).json()["state"] == "Processing"
    ready.machine.done()


@pytest.mark.parametrize("after", ["boot:0", "older:1"], ids=["behind", "another boot"])
async def test_a_long_poll_that_is_behind_is_answered_at_once(ready, after):
    answer = await asyncio.wait_for(ask(ready, params={"after": after, "wait": "60"}), 10)
    assert answer.json()["seq"] == 1


@pytest.mark.parametrize(
    "query",
    [{"wait": "61"}, {"wait": "nan"}, {"wait": "-1"}, {"idle_after": "inf"}, {"after": "boot"}, {"after": "boot:x"}],
    ids=str,
)
async def test_a_wrong_query_is_told_what_was_expected(ready, query):
    answer = await ask(ready, params=query)
    assert answer.status_code == 400
    assert "expected" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "status", "state"),
    [
        pytest.param({"worker_id": "uid", "boot_id": "boot"}, 200, "Evicting", id="agreed"),
        pytest.param({"worker_id": "uid", "boot_id": "boot", "unused_for": 999}, 409, "Ready", id="used lately"),
        pytest.param({"worker_id": "uid", "boot_id": "old", "force": True}, 409, "Ready", id="another boot"),
    ],
)
async def test_evict_answers_with_a_pong_either_way(ready, body, status, state):
    answer = await ask(ready, "/v1/lifecycle/evict", "POST", json=body)
    assert answer.status_code == status
    assert str(Pong.model_validate_json(answer.content).state) == state


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[", b'{"worker_id":"uid","boot_id":"b","unused_for":-1}', b'{"worker_id":"uid"' + b" " * 5000],
    ids=["empty", "nothing", "cut", "negative", "too long"],
)
async def test_a_wrong_evict_changes_nothing(ready, body):
    answer = await ask(ready, "/v1/lifecycle/evict", "POST", content=body)
    assert answer.status_code in (400, 413)
    assert str(ready.machine.state) == "Ready"
