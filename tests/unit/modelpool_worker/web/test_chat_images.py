"""Images in chats: in the request itself, or fetched while the request is pending."""

import asyncio
import base64
import json

import httpx
import pytest

from modelpool_worker.errors import InvalidRequestError
from modelpool_worker.web.body_budget import BodyBudget
from modelpool_worker.web.chat import ImageChat
from modelpool_worker.web.endpoint import Serving

PATH = "/v1/chat/completions"
BYTES = b"not looked into here"
HERE = "data:image/png;base64," + base64.b64encode(BYTES).decode()
THERE = "https://images.example/fish.png"


def ask(*urls, text="hello", **fields):
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    content = [*parts, {"type": "text", "text": text}]
    return {"model": "org/m", "messages": [{"role": "user", "content": content}]} | fields


class Shelf:
    """A fetcher of what a test has put there: bytes, or the error that fetching ends with; or nothing for ever."""

    def __init__(self, found):
        self.found = found
        self.asked = []
        self.given_up = asyncio.Event()
        self.fetching = asyncio.Event()

    async def fetch_all(self, urls, *, param, take):
        self.asked.append([url.origin.host for url in urls])
        self.fetching.set()
        if isinstance(self.found, Exception):
            raise self.found
        if self.found is None:
            try:
                await asyncio.Event().wait()
            finally:
                self.given_up.set()
        for _url in urls:
            take(len(self.found))
        return dict.fromkeys(urls, self.found)


def endpoint(worker, fetcher, bodies=None):
    bodies = bodies or BodyBudget(2**20)
    return ImageChat(Serving(worker.settings, worker.machine, worker.runner, worker.metrics, bodies), fetcher)


def seen(worker):
    """Keep the parts of what the model was given."""
    parts = []
    prepare = worker.capability.prepare

    def keep(inputs):
        parts.extend(request.messages[-1].parts for request in inputs)
        return prepare(inputs)

    worker.capability.prepare = keep
    return parts


async def post(app, body):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://worker") as http:
        return await http.post(PATH, json=body)


async def test_an_image_in_the_request_reaches_the_model(speaking):
    async with speaking(capability="vision") as (worker, url), httpx.AsyncClient(base_url=url) as http:
        parts = seen(worker)
        answer = await http.post(PATH, json=ask(HERE, n=2))
        assert answer.json()["choices"][1]["message"]["content"] == "hello"
        assert parts == [(BYTES, "hello")] * 2


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_nothing_is_fetched_unless_it_is_allowed(speaking, stream):
    async with speaking(capability="vision") as (worker, url), httpx.AsyncClient(base_url=url) as http:
        answer = await http.post(PATH, json=ask(THERE, stream=stream))
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "messages")
        assert "images.example" not in answer.text
        assert worker.machine.pending == 0


async def test_a_model_of_texts_takes_no_image(speaking):
    async with speaking() as (_worker, url), httpx.AsyncClient(base_url=url) as http:
        for image in (HERE, THERE):
            answer = await http.post(PATH, json=ask(image))
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "messages")


async def test_what_was_fetched_reaches_the_model_in_its_place(speaking):
    async with speaking(capability="vision") as (worker, _url):
        parts, shelf = seen(worker), Shelf(BYTES)
        answer = await post(endpoint(worker, shelf), ask(THERE, HERE, THERE))
        assert answer.status_code == 200
        assert parts == [(BYTES, BYTES, BYTES, "hello")]
        assert shelf.asked == [["images.example"]]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_what_was_fetched_is_held_until_the_answer_and_others_are_told_to_come_again(speaking, stream):
    async with speaking(capability="vision") as (worker, _url), asyncio.timeout(20):
        bodies = BodyBudget(4096)
        first, second = (endpoint(worker, Shelf(bytes(size)), bodies) for size in (3000, 1000))
        worker.capability.gate.clear()
        waits = asyncio.create_task(post(first, ask(THERE, stream=stream)))
        await asyncio.to_thread(worker.capability.joined.wait, 20)
        assert bodies.bytes > 3000
        refused = await post(second, ask(THERE))
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        assert refused.json()["error"]["code"] == "queue_full"
        worker.capability.gate.set()
        assert (await waits).status_code == 200
        assert (await post(second, ask(THERE))).status_code == 200
        assert (bodies.bytes, worker.machine.pending) == (0, 0)


async def test_what_cannot_be_fetched_is_the_requests_fault(speaking):
    async with speaking(capability="vision") as (worker, _url):
        shelf = Shelf(InvalidRequestError("expected an image there", param="messages"))
        answer = await post(endpoint(worker, shelf), ask(THERE, stream=True))
        assert (answer.status_code, answer.json()["error"]["message"]) == (400, "expected an image there")
        assert worker.machine.pending == 0


async def test_a_request_is_pending_while_its_images_are_fetched_and_a_client_that_leaves_ends_that(speaking):
    async with speaking(capability="vision") as (worker, _url):
        shelf, messages = Shelf(None), asyncio.Queue()
        messages.put_nowait({"type": "http.request", "body": json.dumps(ask(THERE)).encode(), "more_body": False})
        scope = {"type": "http", "method": "POST", "path": PATH, "headers": [], "query_string": b""}

        async def send(message):
            raise AssertionError(f"nobody is there for {message['type']}")

        request = asyncio.create_task(endpoint(worker, shelf)(scope, messages.get, send))
        async with asyncio.timeout(20):
            await shelf.fetching.wait()
            assert worker.machine.pending == 1
            messages.put_nowait({"type": "http.disconnect"})
            await shelf.given_up.wait()
            await request
        assert worker.machine.pending == 0
