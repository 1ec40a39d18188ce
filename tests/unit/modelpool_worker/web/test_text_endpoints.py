"""Chat and completions as clients see them: the official client and plain HTTP, over a real connection."""

import asyncio
import json
import socket
import threading

import httpx
import openai
import pytest

from modelpool_api import EvictRequest

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


def chat(text, **fields):
    return {"model": "org/m", "messages": [{"role": "user", "content": text}]} | fields


def completion(text, **fields):
    return {"model": "org/m", "prompt": text, "max_tokens": 100} | fields


BOTH = pytest.mark.parametrize(("path", "ask"), [(CHAT, chat), (COMPLETIONS, completion)], ids=["chat", "completions"])


def official(url, **options):
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, **options)


def sample(worker, name, **labels):
    return worker.metrics.registry.get_sample_value(f"modelpool_worker_{name}", labels)


async def until(condition):
    """Wait for what the event loop brings about; the worker has no event for it."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def chunks(text):
    """Return a stream's JSON events, and whether it ended as a complete one does."""
    events = [line.removeprefix("data: ") for line in text.split("\n\n") if line.startswith("data: ")]
    done = bool(events) and events[-1] == "[DONE]"
    return [json.loads(event) for event in events if event != "[DONE]"], done


async def cut(http, path, fields, meanwhile=lambda: None):
    """Return what a stream said before its connection was cut; ``meanwhile`` is called for every part."""
    received = ""
    try:
        async with http.stream("POST", path, json=fields) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert answer.headers.get_list("X-Modelpool-Worker") == ["uid"]
            assert answer.headers["cache-control"] == "no-cache"
            async for part in answer.aiter_text():
                received += part
                meanwhile()
    except httpx.RemoteProtocolError:
        return received
    raise AssertionError("the stream ended as if it were complete")


async def test_a_chat_answers_the_official_client(speaking):
    async with speaking() as (worker, url), official(url) as client:
        answer = await client.chat.completions.create(**chat("hé!", n=2, max_completion_tokens=3))
        assert [choice.message.content for choice in answer.choices] == ["hé!", "hé!"]
        assert [(choice.index, choice.finish_reason, choice.logprobs) for choice in answer.choices] == [
            (0, "stop", None),
            (1, "stop", None),
        ]
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 6, 9)
        assert (answer.object, answer.model) == ("chat.completion", "org/m")
        assert sample(worker, "requests_total", outcome="ok") == 1
        assert sample(worker, "input_tokens_total") == 3
        assert sample(worker, "output_tokens_total") == 6
        assert sample(worker, "first_token_seconds_count") == 1
        assert sample(worker, "request_seconds_count") == 1


async def test_a_streamed_chat_answers_the_official_client(speaking):
    async with speaking() as (worker, url), official(url) as client:
        stream = await client.chat.completions.create(
            **chat("hello", stream=True, stream_options={"include_usage": True}, max_tokens=4)
        )
        seen = [chunk async for chunk in stream]
        choices = [chunk.choices[0] for chunk in seen[:-1]]
        assert choices[0].delta.role == "assistant"
        assert "".join(choice.delta.content or "" for choice in choices) == "hell"
        assert [choice.finish_reason for choice in choices] == [None] * (len(choices) - 1) + ["length"]
        assert (seen[-1].choices, seen[-1].usage.completion_tokens) == ([], 4)
        assert {chunk.usage for chunk in seen[:-1]} == {None}
        assert len({chunk.id for chunk in seen}) == 1
        assert sample(worker, "output_tokens_total") == 4
        assert sample(worker, "first_token_seconds_count") == 1


async def test_completions_answer_the_official_client(speaking):
    async with speaking() as (_worker, url), official(url) as client:
        answer = await client.completions.create(**completion(["ab", "c"], n=2))
        assert [(choice.index, choice.text) for choice in answer.choices] == [(0, "ab"), (1, "ab"), (2, "c"), (3, "c")]
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 6)
        ids = await client.completions.create(**completion([104, 105], logprobs=2))
        assert ids.choices[0].text == "hi"
        assert ids.choices[0].logprobs.tokens == ["h", "i"]
        assert ids.choices[0].logprobs.text_offset == [0, 1]
        assert ids.choices[0].logprobs.top_logprobs[0] == {"a": -2.0, "b": -2.0, "h": -0.5}
        stream = await client.completions.create(**completion(["ab", "c"], stream=True))
        said = {0: "", 1: ""}
        async for chunk in stream:
            said[chunk.choices[0].index] += chunk.choices[0].text
        assert said == {0: "ab", 1: "c"}


async def test_logprobs_of_a_chat_are_the_same_streamed_or_whole(speaking):
    async with speaking() as (_worker, url), official(url) as client:
        fields = chat("hé", logprobs=True, top_logprobs=1)
        whole = (await client.chat.completions.create(**fields)).choices[0].logprobs.content
        assert [(each.token, each.bytes, each.top_logprobs[0].token) for each in whole] == [
            ("h", [104], "a"),
            ("é", [195, 169], "a"),
        ]
        stream = await client.chat.completions.create(**fields, stream=True)
        streamed = [entry async for chunk in stream for entry in _entries(chunk)]
        assert streamed == whole


def _entries(chunk):
    logprobs = chunk.choices[0].logprobs
    return logprobs.content if logprobs is not None else []


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@BOTH
@pytest.mark.parametrize(
    ("text", "status", "param"),
    [("bad input", 400, "messages"), ("bad row", 400, "prompt"), ("poison", 500, None), ("", 400, None)],
    ids=["when prepared", "when it joins", "in the model", "at once"],
)
async def test_what_goes_wrong_before_the_first_byte_is_told_by_the_status(
    speaking, path, ask, stream, text, status, param
):
    async with speaking() as (worker, url), httpx.AsyncClient(base_url=url) as http:
        fields = ask(text, stream=stream) if text else ask("x", stream=stream, n=0)
        answer = await http.post(path, json=fields)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/json"
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        assert answer.json()["error"]["param"] == (param if text else "n")
        assert "swordfish" not in answer.text
        assert (await http.post(path, json=ask("fine"))).status_code == 200
        assert worker.machine.pending == 0


@BOTH
async def test_a_stream_that_fails_midway_says_so_and_is_cut(speaking, path, ask):
    async with speaking() as (worker, url):
        async with httpx.AsyncClient(base_url=url) as http:
            events, done = chunks(await cut(http, path, ask("breaks", stream=True)))
        assert not done
        assert events[-1]["error"] == {
            "message": "the row broke",
            "type": "server_error",
            "param": None,
            "code": "inference_failed",
        }
        assert sample(worker, "requests_total", outcome="failed") == 1
        async with official(url) as client:
            create = client.chat.completions.create if ask is chat else client.completions.create
            stream = await create(**ask("breaks", stream=True))
            with pytest.raises(openai.APIError, match="the row broke"):
                async for _chunk in stream:
                    pass


@BOTH
async def test_a_client_that_leaves_in_midstream_frees_its_row(speaking, path, ask):
    async with speaking() as (worker, url), httpx.AsyncClient(base_url=url) as http:
        async with http.stream("POST", path, json=ask("endless", stream=True)) as answer:
            async for _part in answer.aiter_bytes():
                break
            assert worker.machine.pending == 1
            assert str(worker.machine.state) == "Processing"
            assert not worker.machine.evict(EvictRequest(worker_id="uid", boot_id="boot"))
        assert await asyncio.to_thread(worker.capability.empty.wait, 20)
        await until(lambda: worker.machine.pending == 0)
        assert worker.capability.rows == {}
        assert sample(worker, "requests_total", outcome="client_left") == 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@BOTH
async def test_a_client_that_leaves_before_the_first_token_frees_its_row(speaking, path, ask, stream):
    async with speaking() as (worker, url):
        worker.capability.gate.clear()
        async with httpx.AsyncClient(base_url=url) as http:
            request = asyncio.create_task(http.post(path, json=ask("hello", stream=stream, n=3)))
            assert await asyncio.to_thread(worker.capability.joined.wait, 20)
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)
        await until(lambda: worker.machine.pending == 0)
        worker.capability.step(1)
        assert await asyncio.to_thread(worker.capability.empty.wait, 20)
        assert sample(worker, "requests_total", outcome="client_left") == 1


@BOTH
async def test_a_client_that_does_not_read_loses_its_row(speaking, path, ask):
    async with speaking(answer_timeout_seconds=0.2) as (worker, url):
        body = json.dumps(ask("endless", stream=True)).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: w\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(head + body)
            assert await asyncio.to_thread(worker.capability.joined.wait, 20)
            assert await asyncio.to_thread(worker.capability.empty.wait, 30)
        await until(lambda: worker.machine.pending == 0)
        assert sample(worker, "requests_total", outcome="client_left") == 1


async def test_silence_is_filled_with_comments_that_clients_ignore(speaking):
    async with speaking(heartbeat_seconds=0.02) as (worker, url):
        worker.capability.gate.clear()
        async with httpx.AsyncClient(base_url=url) as http:
            received = ""
            async with http.stream("POST", CHAT, json=chat("ab", stream=True)) as answer:
                async for part in answer.aiter_text():
                    received += part
                    if received.count(": keep-alive\n\n") == 2:
                        worker.capability.step(1)
                    if '"content":"a"' in received and received.endswith(": keep-alive\n\n"):
                        worker.capability.gate.set()
            events, done = chunks(received)
            assert done
            assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == "ab"
        worker.capability.gate.clear()
        async with official(url) as client:
            stream = await client.chat.completions.create(**chat("ab", stream=True))
            worker.capability.gate.set()
            assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "ab"


async def test_a_failure_after_a_heartbeat_is_an_event(speaking):
    async with speaking(heartbeat_seconds=0.02) as (worker, url), httpx.AsyncClient(base_url=url) as http:
        worker.capability.gate.clear()
        events, done = chunks(await cut(http, CHAT, chat("bad row", stream=True), worker.capability.gate.set))
        assert (done, [event["error"]["param"] for event in events]) == (False, ["prompt"])


async def test_what_waits_goes_out_in_one_write(speaking):
    """While a write waits for its client the model goes on; then all that came goes out together."""
    async with speaking() as (worker, _url):
        worker.capability.gate.clear()
        sent, taking, first = [], asyncio.Event(), asyncio.Event()

        async def send(message):
            sent.append(message)
            if message["type"] == "http.response.body":
                first.set()
                await taking.wait()

        body = json.dumps(chat("0123456789", stream=True)).encode()
        messages = asyncio.Queue()
        messages.put_nowait({"type": "http.request", "body": body, "more_body": False})
        scope = {"type": "http", "method": "POST", "path": CHAT, "headers": [], "query_string": b""}
        request = asyncio.create_task(worker.inference(scope, messages.get, send))
        worker.capability.step(1)
        await asyncio.wait_for(first.wait(), 20)
        worker.capability.gate.set()
        await until(lambda: all(job.over for job in worker.queue._jobs))
        taking.set()
        await asyncio.wait_for(request, 20)
        bodies = [message["body"] for message in sent if message["type"] == "http.response.body"]
        assert len(bodies) <= 3
        events, done = chunks(b"".join(bodies).decode())
        assert done
        assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == "0123456789"


async def test_a_client_that_reads_too_slowly_is_told_so_and_cut_while_others_are_served(speaking):
    """Logprobs of 20 tokens a piece: nearly 3,000 pieces may wait."""
    async with speaking() as (worker, url), httpx.AsyncClient(base_url=url) as http:
        sent, taking = [], asyncio.Event()

        async def send(message):
            sent.append(message)
            await taking.wait()

        fields = chat("x" * 4000, stream=True, logprobs=True, top_logprobs=20)
        messages = asyncio.Queue()
        messages.put_nowait({"type": "http.request", "body": json.dumps(fields).encode(), "more_body": False})
        scope = {"type": "http", "method": "POST", "path": CHAT, "headers": [], "query_string": b""}
        slow = asyncio.create_task(worker.inference(scope, messages.get, send))
        assert (await http.post(CHAT, json=chat("steady"))).status_code == 200
        assert await asyncio.to_thread(worker.capability.empty.wait, 20)
        assert (await http.post(CHAT, json=chat("later"))).status_code == 200
        taking.set()
        await asyncio.wait_for(slow, 20)
        events, done = chunks(b"".join(message.get("body", b"") for message in sent).decode())
        assert (done, events[-1]["error"]["code"]) == (False, "too_far_behind")
        assert sent[-1]["more_body"], "no client takes it for complete"
        assert sample(worker, "requests_total", outcome="client_left") == 1
        assert worker.machine.pending == 0


def hold_second_portion(model):
    """Have the model prepare its second portion only once the second event is set; the first tells that it began."""
    began, go_on, prepare, portions = threading.Event(), threading.Event(), model.prepare, []

    def held(inputs):
        portions.append(len(inputs))
        if len(portions) == 2:
            began.set()
            assert go_on.wait(20)
        return prepare(inputs)

    model.prepare = held
    return began, go_on


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_no_text_says_anything_before_somebody_takes_it(speaking, stream):
    """128 texts are prepared in two portions; 64 could meanwhile say more than may wait for a client that reads."""
    async with speaking() as (worker, url), httpx.AsyncClient(base_url=url, timeout=30) as http:
        began, go_on = hold_second_portion(worker.capability)
        fields = completion(["x" * 20] * 64, n=2, stream=stream)
        asked = asyncio.create_task(http.post(COMPLETIONS, json=fields))
        assert await asyncio.to_thread(began.wait, 20)
        (job,) = worker.queue._jobs
        assert (job.taken, len(job.waiting)) == (0, 0)
        go_on.set()
        answer = await asked
    if stream:
        events, done = chunks(answer.text)
        assert done
        choices = [choice for event in events for choice in event["choices"]]
    else:
        choices = answer.json()["choices"]
    texts = dict.fromkeys(range(128), "")
    for choice in choices:
        texts[choice["index"]] += choice["text"]
    assert set(texts.values()) == {"x" * 20}


async def test_a_client_that_leaves_while_its_texts_are_prepared_begins_none(speaking):
    async with speaking() as (worker, url), httpx.AsyncClient(base_url=url) as http:
        began, go_on = hold_second_portion(worker.capability)
        asked = asyncio.create_task(http.post(COMPLETIONS, json=completion(["x" * 20] * 64, n=2, stream=True)))
        assert await asyncio.to_thread(began.wait, 20)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        await until(lambda: worker.machine.pending == 0)
        go_on.set()
        assert (await http.post(COMPLETIONS, json=completion("next"))).json()["choices"][0]["text"] == "next"
        assert sample(worker, "output_tokens_total") == len("next")


async def test_a_wrong_text_among_the_last_refuses_the_request_by_its_status(speaking):
    async with speaking() as (worker, url), httpx.AsyncClient(base_url=url) as http:
        answer = await http.post(COMPLETIONS, json=completion(["x" * 20] * 63 + ["bad input"], n=2, stream=True))
        assert (answer.status_code, worker.capability.joined.is_set()) == (400, False)


@BOTH
async def test_while_loading_and_when_full_a_stream_is_refused_like_the_rest(speaking, path, ask):
    async with speaking(max_queued_requests=1) as (worker, url), httpx.AsyncClient(base_url=url) as http:
        worker.capability.gate.clear()
        running = asyncio.create_task(http.post(path, json=ask("a")))
        assert await asyncio.to_thread(worker.capability.joined.wait, 20)
        waiting = asyncio.create_task(http.post(path, json=ask("b")))
        await until(lambda: worker.queue.depth == 1)
        refused = await http.post(path, json=ask("c", stream=True))
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        worker.capability.gate.set()
        assert [(await task).status_code for task in (running, waiting)] == [200, 200]
        worker.machine.terminate()
        gone = await http.post(path, json=ask("d", stream=True))
        assert (gone.status_code, gone.headers["X-Modelpool-State"]) == (503, "Evicting")


async def test_a_stream_counts_as_pending_until_its_end_is_sent_and_a_drain_lets_it_end(speaking):
    async with speaking() as (worker, url), httpx.AsyncClient(base_url=url) as http:
        worker.capability.gate.clear()
        worker.capability.step(1)
        received = ""
        async with http.stream("POST", CHAT, json=chat("abc", stream=True)) as answer:
            async for part in answer.aiter_text():
                received += part
                if worker.capability.gate.is_set():
                    continue
                worker.machine.terminate()
                assert worker.machine.pending == 1
                worker.capability.gate.set()
        assert chunks(received)[1]


async def test_a_drain_that_takes_too_long_cuts_the_stream_with_its_reason(speaking):
    async with speaking(drain_timeout_seconds=0.05) as (worker, url), httpx.AsyncClient(base_url=url) as http:
        worker.capability.gate.clear()
        worker.capability.step(1)
        events, done = chunks(await cut(http, CHAT, chat("abc", stream=True), worker.machine.terminate))
        assert (done, events[-1]["error"]["code"]) == (False, "worker_not_serving")
