"""The inference port as a client sees it."""

import asyncio
import base64

import httpx
import numpy as np
import openai
import pytest

from modelpool_api import EvictRequest

EMBED = {"model": "org/m", "input": "hello"}


def client(app):
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://worker")


def metric(worker, outcome):
    return worker.metrics.registry.get_sample_value("modelpool_worker_requests_total", {"outcome": outcome})


async def embed(worker, **fields):
    async with client(worker.inference) as http:
        return await http.post("/v1/embeddings", json=EMBED | fields)


async def get(worker, path):
    async with client(worker.inference) as http:
        return await http.get(path)


async def test_while_loading_it_is_alive_and_refuses(loading):
    assert (await get(loading, "/healthz")).status_code == 200
    probe = await get(loading, "/readyz")
    assert (probe.status_code, probe.json()) == (503, {"state": "Loading"})
    refused = await embed(loading)
    assert refused.status_code == 503
    assert refused.headers["X-Modelpool-State"] == "Loading"
    assert int(refused.headers["Retry-After"]) <= 120
    assert metric(loading, "not_serving") == 1


async def test_a_request_is_answered_and_counted(ready):
    answer = await embed(ready, input=["hello", "hi"])
    assert answer.status_code == 200
    assert [entry["embedding"] for entry in answer.json()["data"]] == [[5, 0], [2, 0]]
    assert answer.json()["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert [str(move.to_state) for move in ready.machine.pong(ready.runner.gauges(), 0).transitions] == [
        "Ready",
        "Processing",
        "Ready",
    ]
    assert metric(ready, "ok") == 1
    assert (await get(ready, "/readyz")).status_code == 200


async def test_models(ready):
    listed = (await get(ready, "/v1/models")).json()
    assert [model["id"] for model in listed["data"]] == ["org/m"]
    assert (await get(ready, "/v1/models/org/m")).json()["id"] == "org/m"
    assert (await get(ready, "/v1/models/other")).json()["error"]["code"] == "model_not_found"


async def test_the_official_client_works_unchanged(ready):
    http = client(ready.inference)
    async with openai.AsyncOpenAI(base_url="http://worker/v1", api_key="none", max_retries=0, http_client=http) as asks:
        assert [model.id async for model in asks.models.list()] == ["org/m"]
        model = await asks.models.retrieve("org/m")
        assert (model.id, model.object, model.owned_by) == ("org/m", "model", "modelpool")
        with pytest.raises(openai.NotFoundError):
            await asks.models.retrieve("other")
        for given, lengths in [("hello", [5]), (["a", "bcd"], [1, 3]), ([7, 8, 9], [3]), ([[7, 8], [9]], [2, 1])]:
            for form in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
                answer = await asks.embeddings.create(model="org/m", input=given, **form)
                found = [entry.embedding for entry in answer.data]
                if form.get("encoding_format") == "base64":
                    found = [np.frombuffer(base64.b64decode(each), "<f4").tolist() for each in found]
                assert found == [[length, 0] for length in lengths]
                assert [entry.index for entry in answer.data] == list(range(len(lengths)))
                assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(lengths)
        short = await asks.embeddings.create(model="org/m", input=["hello", "x"], dimensions=1)
        assert [entry.embedding for entry in short.data] == [[1.0], [1.0]]
        with pytest.raises(openai.BadRequestError, match="dimensions"):
            await asks.embeddings.create(model="org/m", input="hello", dimensions=3)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/embeddings", 405, "method_not_allowed"),
        ("POST", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/v1/lifecycle", 404, "not_found"),
        ("POST", "/v1/chat/completions", 404, "not_found"),
        ("POST", "/v1/embeddings", 400, None),
    ],
)
async def test_errors_have_the_shape_that_clients_expect(ready, method, path, status, code):
    async with client(ready.inference) as http:
        answer = await http.request(method, path, content=b"swordfish")
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.json()["error"]["code"] == code
    assert "swordfish" not in answer.text


async def test_health_answers_while_a_batch_blocks_the_model(ready):
    """The batch cannot end before the probes have been answered: the gate is opened after them."""
    ready.capability.gate.clear()
    request = asyncio.create_task(embed(ready))
    await ready.until_running()
    assert (await get(ready, "/healthz")).status_code == 200
    assert (await get(ready, "/readyz")).json() == {"state": "Processing"}
    assert "modelpool_worker_pending_requests 1.0" in (await get(ready, "/metrics")).text
    assert not request.done()
    ready.capability.gate.set()
    assert (await request).status_code == 200
    assert ready.machine.pending == 0


async def test_requests_that_wait_run_together(ready):
    ready.capability.gate.clear()
    first = asyncio.create_task(embed(ready, input="first"))
    await ready.until_running()
    others = [asyncio.create_task(embed(ready, input=text)) for text in ("bb", "a")]
    await queued(ready, 2)
    ready.capability.gate.set()
    assert [(await task).status_code for task in (first, *others)] == [200, 200, 200]
    assert ready.capability.batches == [["first"], ["a", "bb"]]


async def queued(worker, number):
    """Wait until so many requests are prepared and wait for the model."""
    async with asyncio.timeout(20):
        while sum(bool(job.waiting) for job in worker.queue._jobs) < number:  # noqa: ASYNC110 - the product has no such event
            await asyncio.sleep(0)


async def test_a_full_queue_answers_429(make_worker):
    worker = make_worker(max_queued_requests=1)
    life = asyncio.create_task(worker.runner.live())
    await worker.reach("Ready")
    worker.capability.gate.clear()
    running = asyncio.create_task(embed(worker))
    await worker.until_running()
    waits = asyncio.create_task(embed(worker))
    await queued(worker, 1)
    refused = await embed(worker)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
    assert refused.headers["Retry-After"] == "1"
    assert worker.machine.pending == 2
    worker.capability.gate.set()
    assert [(await running).status_code, (await waits).status_code] == [200, 200]
    life.cancel()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        pytest.param("cannot embed", "inference_failed", id="anything"),
        pytest.param("DefaultCPUAllocator: can't allocate memory for", "out_of_memory", id="no memory"),
    ],
)
async def test_one_request_does_not_pay_for_anothers_failure(ready, error, code):
    ready.capability.error = error
    ready.capability.gate.clear()
    first = asyncio.create_task(embed(ready, input="first"))
    await ready.until_running()
    ready.capability.poison = "swordfish"
    bad = asyncio.create_task(embed(ready, input="swordfish"))
    good = asyncio.create_task(embed(ready, input="good"))
    await queued(ready, 2)
    ready.capability.gate.set()
    assert [(await first).status_code, (await good).status_code] == [200, 200]
    failed = await bad
    assert (failed.status_code, failed.json()["error"]["code"]) == (500, code)
    assert "swordfish" not in failed.text
    assert (await embed(ready)).status_code == 200


@pytest.mark.parametrize("headers", [{"Content-Length": "9000000"}, {}], ids=["announced", "streamed"])
async def test_a_body_beyond_the_limit_is_refused_unread(ready, headers):
    sent = 0

    async def body():
        nonlocal sent
        for _ in range(9):
            sent += 1
            yield b"x" * 1_000_000

    async with client(ready.inference) as http:
        answer = await http.post("/v1/embeddings", content=body(), headers=headers)
    assert answer.status_code == 413
    assert answer.headers["Connection"] == "close"
    assert ready.machine.seq == 1


async def test_a_length_given_twice_is_refused(ready):
    async with client(ready.inference) as http:
        headers = {"Content-Length": "2", "Transfer-Encoding": "chunked"}
        answer = await http.post("/v1/embeddings", content=b"{}", headers=headers)
    assert answer.status_code == 400
    assert answer.headers["Connection"] == "close"


async def call(app, messages, path="/v1/embeddings"):
    """Call an ASGI app; ``messages`` is a queue of what the client does next."""
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b"", "http_version": "1.1"}
    await app(scope, messages.get, send)
    return sent


async def test_a_client_that_leaves_frees_its_place(ready):
    ready.capability.gate.clear()
    messages = asyncio.Queue()
    messages.put_nowait({"type": "http.request", "body": b'{"model":"org/m","input":"x"}', "more_body": False})
    request = asyncio.create_task(call(ready.inference, messages))
    await ready.until_running()
    assert ready.machine.pending == 1
    messages.put_nowait({"type": "http.disconnect"})
    assert await request == []
    assert (ready.machine.pending, str(ready.machine.state)) == (0, "Ready")
    assert metric(ready, "client_left") == 1
    ready.capability.gate.set()
    assert (await embed(ready)).status_code == 200


async def test_a_request_is_pending_until_its_answer_is_taken(ready):
    """An eviction that comes while the answer is being sent is refused: the request has not been answered yet."""
    taking = asyncio.Event()
    sending = asyncio.Event()
    states = []

    async def send(message):
        if message["type"] == "http.response.start":
            states.append((ready.machine.pending, ready.machine.evict(evict_now(ready))))
            sending.set()
            await taking.wait()

    async def receive():
        if states or receive.asked:
            await asyncio.Event().wait()
        receive.asked = True
        return {"type": "http.request", "body": b'{"model":"org/m","input":"x"}', "more_body": False}

    receive.asked = False
    scope = {"type": "http", "method": "POST", "path": "/v1/embeddings", "headers": [], "query_string": b""}
    request = asyncio.create_task(ready.inference(scope, receive, send))
    await asyncio.wait_for(sending.wait(), 20)
    assert states == [(1, False)]
    taking.set()
    await request
    assert ready.machine.evict(evict_now(ready))


def evict_now(worker):
    return EvictRequest(worker_id="uid", boot_id=worker.machine.boot_id)


async def test_a_request_still_being_sent_when_the_worker_must_go_is_refused_like_the_rest(ready):
    """It was never admitted: 503 with Retry-After at once, not a cut connection when the process ends."""
    began, answers = asyncio.Event(), []

    async def receive():
        if began.is_set():
            await asyncio.Event().wait()  # the rest never comes
        began.set()
        return {"type": "http.request", "body": b'{"mod', "more_body": True}

    async def send(message):
        answers.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/embeddings",
        "raw_path": b"/v1/embeddings",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"worker"), (b"content-length", b"1000")],
        "client": ("127.0.0.1", 1),
        "server": ("worker", 80),
    }
    request = asyncio.create_task(ready.inference(scope, receive, send))
    await began.wait()

    ready.machine.terminate()
    async with asyncio.timeout(20):
        await request

    assert answers[0]["status"] == 503
    assert b"retry-after" in {name.lower() for name, _ in answers[0]["headers"]}
    assert metric(ready, "not_serving") == 1


async def test_a_slash_too_many_is_not_found_and_leads_nowhere_else(ready):
    async with client(ready.inference) as http:
        answer = await http.post("/v1/embeddings/", json=EMBED, headers={"Host": "elsewhere.example"})

    assert answer.status_code == 404
    assert "location" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        pytest.param("POST", "/v1/embeddings", {}, 200, id="answer"),
        pytest.param("POST", "/v1/embeddings", {"Content-Encoding": "gzip"}, 400, id="wrong"),
        pytest.param("POST", "/v1/embeddings", {"Transfer-Encoding": "chunked"}, 400, id="ambiguous"),
        pytest.param("GET", "/v1/models/other", {}, 404, id="another-model"),
        pytest.param("GET", "/readyz", {}, 200, id="probe"),
    ],
)
async def test_every_answer_says_which_worker_has_given_it(ready, method, path, headers, status):
    for _ in range(2):
        async with client(ready.inference) as http:
            answer = await http.request(method, path, json=EMBED, headers=headers)
        assert answer.status_code == status
        assert answer.headers.get_list("X-Modelpool-Worker") == ["uid"]
