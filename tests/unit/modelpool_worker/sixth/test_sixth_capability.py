"""A sixth capability is one new file and its entry: everything else of a worker serves it without knowing it."""

import asyncio
import json
from contextlib import asynccontextmanager

import httpx
import numpy as np
import pytest
from safetensors.numpy import save_file

from modelpool_api import EvictRequest
from modelpool_worker.capabilities import registry
from modelpool_worker.runner import Exit
from unit.modelpool_worker.sixth import languages

PATH = "/v1/guesses"
PLACE = languages.__name__
ENTRIES = registry.ENTRIES | {"language-guess": registry.Entry(f"{PLACE}:Languages", {PATH: f"{PLACE}:Guesses"})}
TEXTS = ["zazu kozy", "the thing with three", "thy"]
ANSWER = ["made up", "english", "english"]


@pytest.fixture
def folder(tmp_path):
    """A model that takes z and k for one language, t and h for the other."""
    weight = np.zeros((2, 26), dtype=np.float32)
    weight[0, [ord(c) - 97 for c in "th"]] = weight[1, [ord(c) - 97 for c in "zk"]] = 1
    made = tmp_path / "model"
    made.mkdir()
    save_file({"weight": weight}, made / "model.safetensors")
    (made / "config.json").write_text(json.dumps({"languages": ["english", "made up"]}))
    return made


@pytest.fixture
def guessing(make_worker, folder):
    """A function that starts a worker of the sixth capability; an async context of (worker, client)."""

    @asynccontextmanager
    async def start(**changes):
        languages.GATE.set()
        languages.RAN.clear()
        languages.UNLOADED.clear()
        settings = {"capability": "language-guess", "model_source": f"file://{folder}", "threads": 1}
        worker = make_worker(entries=ENTRIES, **(settings | changes))
        transport = httpx.ASGITransport(app=worker.inference, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://worker") as http, asyncio.timeout(20):
            worker.life = asyncio.create_task(worker.runner.live())
            try:
                yield worker, http
            finally:
                languages.GATE.set()
                worker.life.cancel()
                await asyncio.gather(worker.life, return_exceptions=True)

    return start


async def post(http, texts=TEXTS, **fields):
    return await http.post(PATH, json={"model": "org/m", "input": texts} | fields)


def sample(worker, name, **labels):
    return worker.metrics.registry.get_sample_value(f"modelpool_worker_{name}", labels)


async def test_a_whole_life(guessing):
    """Loading, Ready, Processing, Ready, Idle, Evicting; right answers, counted, and a model that is unloaded."""
    async with guessing() as (worker, http):
        assert (await http.get("/readyz")).json() == {"state": "Loading"}
        assert (await post(http)).status_code == 503
        await worker.reach("Ready")
        assert (await http.get("/readyz")).status_code == 200
        answer = await post(http)
        assert (answer.status_code, answer.json()) == (200, {"languages": ANSWER})

        worker.machine.set_idle_timeout(0)
        await worker.reach("Idle")
        asked = EvictRequest(worker_id="uid", boot_id="boot", reason="IdleEviction")
        assert worker.machine.evict(asked)
        assert (await post(http)).headers["X-Modelpool-State"] == "Evicting"
        assert await worker.life == Exit(0, "IdleEviction")

        assert languages.UNLOADED.is_set()
        pong = worker.machine.pong(worker.runner.gauges(), 0)
        states = ["Ready", "Processing", "Ready", "Idle", "Evicting"]
        assert [str(move.to_state) for move in pong.transitions] == states
        assert (pong.device, set(pong.phases)) == ("cpu", {"import", "fetch", "load", "warm_up"})
        outcomes = {outcome: sample(worker, "requests_total", outcome=outcome) for outcome in ("ok", "not_serving")}
        assert outcomes == {"ok": 1, "not_serving": 2}
        assert sample(worker, "input_tokens_total") == sum(map(len, TEXTS))
        assert sample(worker, "request_seconds_count") == 1
        assert sample(worker, "batch_items_sum") == len(TEXTS)
        assert sample(worker, "state", state="Evicting") == 1


async def test_requests_that_wait_run_together_within_the_model_s_own_limit(guessing):
    async with guessing() as (worker, http):
        await worker.reach("Ready")
        languages.GATE.clear()
        first = asyncio.create_task(post(http, ["thy"]))
        await worker.reach("Processing")
        others = [asyncio.create_task(post(http)) for _ in range(3)]
        while sum(bool(job.waiting) for job in worker.queue._jobs) < 3:  # noqa: ASYNC110 - the product has no such event
            await asyncio.sleep(0)
        languages.GATE.set()
        assert [(await each).json()["languages"] for each in (first, *others)] == [["english"], *[ANSWER] * 3]
        assert sum(languages.RAN) == 10
        assert max(languages.RAN) == 4
        assert sample(worker, "pending_requests") == 0


@pytest.mark.parametrize(
    ("request_", "status", "code", "param"),
    [
        ({"json": {"model": "org/m", "input": "thy"}}, 400, None, "input"),
        ({"json": {"model": "org/m", "input": ["thy", " "]}}, 400, None, "input"),
        ({"json": {"model": "org/m", "input": ["x"] * (languages.MAX_TEXTS + 1)}}, 400, None, "input"),
        ({"json": {"model": "other", "input": ["thy"]}}, 404, "model_not_found", "model"),
        ({"content": b"swordfish"}, 400, None, None),
        ({"content": b"x" * 2000}, 413, "body_too_large", None),
        ({"content": b"", "headers": {"Content-Encoding": "gzip"}}, 400, None, None),
    ],
    ids=["its own check", "its own check, prepared", "its own limit", "another model", "no JSON", "too large", "gzip"],
)
async def test_what_is_wrong_has_its_error_and_the_worker_lives_on(guessing, request_, status, code, param):
    async with guessing(max_body_bytes=1024) as (worker, http):
        await worker.reach("Ready")
        answer = await http.post(PATH, **request_)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (status, code, param)
        assert "swordfish" not in answer.text
        assert (await http.get(PATH)).status_code == 405
        assert (await post(http)).json() == {"languages": ANSWER}
        assert worker.machine.pending == 0
        assert sample(worker, "requests_total", outcome="invalid") == 1


async def test_a_full_queue_is_a_429_and_a_client_is_told_when_to_come_again(guessing):
    async with guessing(max_queued_requests=1, max_batch_items=1) as (worker, http):
        await worker.reach("Ready")
        languages.GATE.clear()
        taken = [asyncio.create_task(post(http)) for _ in range(3)]
        done, waiting = await asyncio.wait(taken, return_when=asyncio.FIRST_COMPLETED)
        refused = [each.result() for each in done]
        assert {(each.status_code, each.headers["Retry-After"]) for each in refused} == {(429, "1")}
        languages.GATE.set()
        assert {(await each).status_code for each in waiting} == {200}


async def test_a_model_that_does_not_fit_ends_the_worker_with_its_own_sentence(guessing, folder):
    (folder / "config.json").write_text(json.dumps({"languages": ["english"]}))
    async with guessing() as (worker, _http):
        ended = await worker.life
        assert ended == Exit(78, f"file://{folder} has weights of another shape than its languages; copy it again")


async def test_one_that_has_no_entry_is_refused_and_the_new_one_is_among_those_there_are(guessing):
    async with guessing(capability="mind-reading") as (worker, http):
        ended = await worker.life
        assert ended.code == 78
        assert "cannot serve mind-reading; it serves: image-embedding, language-guess, text-embedding" in ended.sentence
        assert (await post(http)).status_code == 404


async def test_the_registry_of_the_image_knows_nothing_of_it(make_worker, folder):
    """So it is the entry alone that makes it known."""
    worker = make_worker(entries=registry.ENTRIES, capability="language-guess", model_source=f"file://{folder}")
    assert (await worker.runner.live()).code == 78
