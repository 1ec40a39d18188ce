"""Image embeddings as clients see them: a real tiny CLIP, the official client and plain HTTP, on a real port."""

import asyncio
import base64
import gc
import json
import threading
import time
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from io import BytesIO

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from modelpool_worker.capabilities.image_embedding import ImageEmbedding
from modelpool_worker.errors import InvalidRequestError
from modelpool_worker.imaging.pixel_budget import PixelBudget
from modelpool_worker.openai.image_embeddings import MAX_INPUTS
from modelpool_worker.openai.multipart import MAX_PARTS
from modelpool_worker.web.body_budget import BodyBudget
from modelpool_worker.web.endpoint import Serving
from modelpool_worker.web.image_embeddings import ImageEmbeddings
from tiny_models import image_encoder
from unit.modelpool_worker.imaging.image_host import PUBLIC, answer, fetcher, network, plainly

pytestmark = pytest.mark.models

PATH = "/v1/embeddings"


class Held(ImageEmbedding):
    """The real thing; a batch waits for the gate, and so does preparing."""

    def __init__(self):
        super().__init__()
        self.gate, self.prepare_gate = threading.Event(), threading.Event()
        self.gate.set()
        self.prepare_gate.set()
        self.loading = threading.Event()
        self.preparing = threading.Event()
        self.prepared = []

    def prepare(self, inputs):
        self.preparing.set()
        assert self.prepare_gate.wait(30)
        self.prepared.append(len(inputs))
        return super().prepare(inputs)

    def run_batch(self, values, wanted):
        assert self.gate.wait(30)
        return super().run_batch(values, wanted)


def picture(colour=(200, 30, 40), size=(40, 30), kind="PNG"):
    file = BytesIO()
    image = Image.new("RGB", size, colour)
    image.paste((255, 255, 0), (0, 0, size[0] // 2, size[1] // 3))
    image.save(file, kind)
    return file.getvalue()


RED, BLUE = picture(), picture((10, 20, 220), (33, 50), "JPEG")


def data_url(data, kind="png"):
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def item(data):
    return {"image": data_url(data)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("clip")
    image_encoder.build(made, "clip")
    return made


@pytest.fixture
def embedding(speaking, folder):
    """A function that starts a worker with the tiny CLIP; an async context of (worker, client)."""

    @asynccontextmanager
    async def start(**changes):
        settings = {"capability": "image-embedding", "model_source": f"file://{folder}", "dtype": "float32"}
        worker_there = speaking(Held(), **(settings | changes))
        async with worker_there as (worker, url), httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as http:
            yield worker, http

    return start


async def post(http, given, **fields):
    return await http.post(PATH, json={"model": "org/m", "input": given} | fields)


def vectors(answer):
    assert answer.status_code == 200, answer.text
    assert [entry["index"] for entry in answer.json()["data"]] == list(range(len(answer.json()["data"])))
    return np.array([entry["embedding"] for entry in answer.json()["data"]], dtype=np.float32)


class Shelf:
    """A fetcher of what a test has put there: bytes, or the error that fetching ends with; or nothing for ever."""

    def __init__(self, found):
        self.found = found
        self.fetching, self.given_up = asyncio.Event(), asyncio.Event()

    async def fetch_all(self, urls, *, param, take):
        if not urls:
            return {}
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


def serving(worker, bodies=None):
    return Serving(worker.settings, worker.machine, worker.runner, worker.metrics, bodies or BodyBudget(2**20))


def beside(worker, shelf, bodies=None):
    """A client of the worker's endpoint that fetches from the shelf."""
    endpoint = ImageEmbeddings(serving(worker, bodies), shelf)
    return httpx.AsyncClient(transport=httpx.ASGITransport(endpoint), base_url="http://worker")


async def test_the_same_image_has_the_same_vector_by_every_way_in(embedding):
    async with embedding() as (worker, http), beside(worker, Shelf(RED)) as fetching:
        ways = {
            "a data URL": await post(http, item(RED)),
            "base64": await post(http, {"image": base64.b64encode(RED).decode()}),
            "a list": await post(http, [item(RED)]),
            "a URL": await post(fetching, {"image": "https://images.example/cat.png"}),
            "a form": await http.post(PATH, data={"model": "org/m"}, files={"image": ("cat.png", RED, "image/png")}),
            "a form's file": await http.post(PATH, data={"model": "org/m"}, files={"file": RED}),
            "the body": await http.post(PATH, content=RED, headers={"Content-Type": "image/png"}),
            "the body, named": await http.post(
                f"{PATH}?model=org/m", content=RED, headers={"Content-Type": "image/jpeg; charset=x"}
            ),
        }
        found = {way: vectors(answer) for way, answer in ways.items()}
        for way, made in found.items():
            np.testing.assert_array_equal(made, found["a data URL"], err_msg=way)
        assert {json.dumps(answer.json()["usage"]) for answer in ways.values()} == {
            '{"prompt_tokens": 4, "total_tokens": 4}'
        }
        other = vectors(await post(http, item(BLUE)))
        assert (found["base64"] @ other.T).item() < 0.99


async def test_an_image_that_is_fetched_has_the_vector_of_one_that_is_sent(embedding):
    async with embedding() as (worker, http), network(partial(plainly, given=answer(RED))) as net:
        async with beside(worker, fetcher(net)) as fetching:
            fetched = vectors(await post(fetching, [{"image": "http://images.example/cat.png"}]))
        np.testing.assert_array_equal(fetched, vectors(await post(http, item(RED))))
        assert net.connected == [(PUBLIC, 80)]


async def test_several_images_and_texts_come_back_in_order(embedding):
    async with embedding() as (worker, http), beside(worker, Shelf(BLUE)) as fetching:
        url = {"image": "https://images.example/x"}
        made = vectors(await post(fetching, [item(RED), "a cat", url, item(RED), url]))
        single = [vectors(await post(http, each))[0] for each in (item(RED), "a cat", item(BLUE))]
        np.testing.assert_allclose(made, np.stack(single)[[0, 1, 2, 0, 2]], atol=1e-5)
        files = [("image", RED), ("file", BLUE), ("image[]", RED)]
        form = vectors(await http.post(PATH, data={"model": "org/m", "user": "me"}, files=files))
        np.testing.assert_allclose(form, made[[0, 2, 3]], atol=1e-5)


async def test_the_official_client_works_unchanged(embedding):
    async with embedding() as (_worker, http):
        async with openai.AsyncOpenAI(base_url=f"{http.base_url}/v1", api_key="none") as client:
            made = await client.embeddings.create(model="org/m", input=[item(RED), item(BLUE)])
            short = await client.embeddings.create(model="org/m", input=[item(RED)], dimensions=5)
        expected = vectors(await post(http, [item(RED), item(BLUE)]))
        np.testing.assert_array_equal(np.array([each.embedding for each in made.data], dtype=np.float32), expected)
        assert len(short.data[0].embedding) == 5


@pytest.mark.parametrize("way", ["json", "form", "body"])
async def test_form_and_length_of_the_vectors_are_asked_for_in_every_way(embedding, way):
    async with embedding() as (_worker, http):
        whole = vectors(await post(http, item(RED)))[0]
        fields = {"model": "org/m", "encoding_format": "base64", "dimensions": 6}
        if way == "json":
            answer = await http.post(PATH, json=fields | {"input": item(RED)})
        elif way == "form":
            answer = await http.post(PATH, data=fields, files={"image": RED})
        else:
            answer = await http.post(PATH, params=fields, content=RED, headers={"Content-Type": "image/png"})
        made = np.frombuffer(base64.b64decode(answer.json()["data"][0]["embedding"]), dtype="<f4")
        np.testing.assert_allclose(made, whole[:6] / np.linalg.norm(whole[:6]), atol=1e-6)


JSON_REFUSALS = {
    "no input": (None, "wrong kind"),
    "a number": (3, "wrong kind"),
    "token ids": ([1, 2, 3], "wrong kind"),
    "an empty list": ([], "empty"),
    "an empty object": ({}, "wrong kind"),
    "another object": ({"picture": "x"}, "wrong kind"),
    "more beside the image": ({"image": data_url(RED), "text": "swordfish"}, "wrong kind"),
    "an image that is no text": ({"image": {"url": "x"}}, "wrong kind"),
    "an image as a text": (data_url(RED), "as if it were a text"),
    "an empty text": ("", "empty string"),
    "a list in a list": ([[item(RED)]], "wrong kind"),
    "nothing in the image": ({"image": ""}, "image is empty"),
    "no base64": ({"image": "swordfish!"}, "neither base64 in one line nor a URL"),
    "a file": ({"image": "file:///etc/passwd"}, "neither base64 in one line nor a URL"),
    "a GIF": (item(picture(kind="GIF")), "unknown kind"),
    "a cut PNG": (item(RED[:40]), "damaged"),
    "a URL": ({"image": "https://swordfish.example/x.png"}, "not fetched from URLs here"),
    "a URL of nonsense": ({"image": "https://swordfish@x/"}, "URL is wrong"),
    "too many": ([item(RED)] * (MAX_INPUTS + 1), f"at most {MAX_INPUTS}"),
    "too many pixels": (item(picture(size=(200, 101))), "expected at most 20000 in all"),
    "too long": (item(picture(size=(132, 4))), "no side more than 32 times the other"),
    "a wrong one among right ones": ([item(RED), {"image": "AAAA"}, item(RED)], "unknown kind"),
}


async def test_every_wrong_input_has_its_sentence_and_the_worker_lives_on(embedding):
    async with embedding(max_image_pixels=20_000) as (worker, http):
        for name, (given, sentence) in JSON_REFUSALS.items():
            answer = await post(http, given)
            assert answer.status_code == 400, name
            assert sentence in answer.json()["error"]["message"], name
            assert answer.json()["error"]["param"] == "input", name
            assert "swordfish" not in answer.text, name
            assert "passwd" not in answer.text, name
        for fields, param in (({"dimensions": 25}, "dimensions"), ({"encoding_format": "int8"}, "encoding_format")):
            answer = await post(http, item(RED), **fields)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
        assert (await post(http, item(RED), model="other")).status_code == 404
        assert worker.machine.pending == 0
        assert len(vectors(await post(http, [item(RED)] * MAX_INPUTS))) == MAX_INPUTS


async def test_a_picture_that_is_damaged_inside_is_refused_after_its_header_was_fine(embedding):
    broken = RED[:60] + bytes(8) + RED[68:]
    async with embedding() as (worker, http):
        answer = await post(http, [item(RED), item(broken)])
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input")
        assert "damaged" in answer.json()["error"]["message"]
        assert worker.machine.pending == 0
        vectors(await post(http, item(RED)))


def form(*parts, boundary=b"xyz", end=b"--"):
    """A form's body of (header lines, content)."""
    lines = [b"--" + boundary + b"\r\n" + head + b"\r\n\r\n" + content + b"\r\n" for head, content in parts]
    return b"".join(lines) + b"--" + boundary + end + b"\r\n"


def named(name, more=b""):
    return b'Content-Disposition: form-data; name="' + name + b'"' + more


MODEL = (named(b"model"), b"org/m")
IMAGE = (named(b"image", b'; filename="cat.png"'), RED)
FORM_REFUSALS = {
    "nothing": (b"", "cut short"),
    "no boundary inside": (b"swordfish", "cannot be read"),
    "no end": (form(MODEL, IMAGE, end=b""), "cut short"),
    "cut in an image": (form(MODEL, IMAGE)[:-40], "cut short"),
    "no image": (form(MODEL), "has no image"),
    "no model": (form(IMAGE), "model is missing"),
    "an empty image": (form(MODEL, (named(b"image"), b"")), "unknown kind"),
    "no picture": (form(MODEL, (named(b"image"), b"swordfish")), "unknown kind"),
    "a text as input": (form(MODEL, (named(b"input"), b"swordfish")), "a form takes files only"),
    "no name": (form(MODEL, (b"Content-Disposition: form-data", RED)), "has no name"),
    "no disposition": (form(MODEL, (b"X: y", RED)), "has no name"),
    "no form-data": (form(MODEL, (b'Content-Disposition: attachment; name="image"', RED)), "has no name"),
    "a long name": (form(MODEL, (named(b"n" * 65), b"x")), "very long one"),
    "a long field": (form(MODEL, IMAGE, (named(b"user"), b"x" * 1025)), "at most 1024 bytes"),
    "a long header": (form(MODEL, (named(b"image", b"; x=" + b"y" * 9000), RED)), "cannot be read"),
    "many headers": (form(MODEL, (named(b"image") + b"\r\nA: b" * 20, RED)), "cannot be read"),
    "many fields": (form(*[(named(b"user"), b"x")] * (MAX_PARTS + 1)), f"at most {MAX_PARTS}"),
    "many images": (form(MODEL, *[IMAGE] * (MAX_INPUTS + 1)), f"at most {MAX_INPUTS}"),
    "an encoded image": (
        form(MODEL, (named(b"image") + b"\r\nContent-Transfer-Encoding: base64", base64.b64encode(RED))),
        "is encoded",
    ),
    "dimensions in words": (form(MODEL, IMAGE, (named(b"dimensions"), b"five")), "dimensions is out of range"),
    "dimensions below": (form(MODEL, IMAGE, (named(b"dimensions"), b"-1")), "dimensions is out of range"),
    "dimensions huge": (form(MODEL, IMAGE, (named(b"dimensions"), b"9" * 1000)), "dimensions is out of range"),
}


async def test_every_wrong_form_has_its_sentence_and_the_worker_lives_on(embedding):
    headers = {"Content-Type": "multipart/form-data; boundary=xyz"}
    async with embedding() as (worker, http):
        for name, (body, sentence) in FORM_REFUSALS.items():
            answer = await http.post(PATH, content=body, headers=headers)
            assert answer.status_code == 400, name
            assert sentence in answer.json()["error"]["message"], name
            assert "swordfish" not in answer.text, name
        for content_type in (
            "multipart/form-data",
            "multipart/form-data; boundary=",
            f"{headers['Content-Type']}{'z' * 999}",
        ):
            answer = await http.post(PATH, content=form(MODEL, IMAGE), headers={"Content-Type": content_type})
            assert answer.status_code == 400
        other = await http.post(PATH, content=form((named(b"model"), b"other"), IMAGE), headers=headers)
        assert other.status_code == 404
        assert worker.machine.pending == 0
        assert vectors(await http.post(PATH, content=form(MODEL, IMAGE), headers=headers)).shape == (1, 24)


@pytest.mark.parametrize(
    ("content_type", "query", "body", "status", "sentence"),
    [
        ("image/gif", "", picture(kind="GIF"), 400, "Content-Type is not taken"),
        ("image/svg+xml", "", b"<svg/>", 400, "Content-Type is not taken"),
        ("multipart/mixed; boundary=x", "", RED, 400, "Content-Type is not taken"),
        ("image/png", "", b"", 400, "unknown kind"),
        ("image/png", "", picture(kind="GIF"), 400, "unknown kind"),
        ("image/png", "?model=other", RED, 404, "another model"),
        ("image/png", "?dimensions=0", RED, 400, "dimensions is out of range"),
        ("image/png", "?" + "a=b&" * 40, RED, 400, "query cannot be read"),
        ("application/json", "", RED, 400, "not valid JSON"),
        ("application/octet-stream", "", RED, 400, "not valid JSON"),
    ],
)
async def test_every_wrong_body_has_its_sentence(embedding, content_type, query, body, status, sentence):
    async with embedding() as (worker, http):
        answer = await http.post(PATH + query, content=body, headers={"Content-Type": content_type})
        assert (answer.status_code, sentence in answer.json()["error"]["message"]) == (status, True)
        assert worker.machine.pending == 0


async def test_a_body_over_the_limit_is_refused_in_every_way(embedding):
    async with embedding(max_body_bytes=1024) as (_worker, http):
        for headers in (
            {"Content-Type": kind} for kind in ("application/json", "image/png", "multipart/form-data; boundary=x")
        ):
            answer = await http.post(PATH, content=bytes(1025), headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


async def test_what_cannot_be_fetched_or_is_no_image_is_the_requests_fault(embedding):
    ask = {"image": "https://images.example/x"}
    for found, sentence in ((InvalidRequestError("not there", param="input"), "not there"), (b"hello", "unknown kind")):
        async with embedding() as (worker, _http), beside(worker, Shelf(found)) as fetching:
            answer = await post(fetching, ask)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input")
            assert sentence in answer.json()["error"]["message"]
            assert worker.machine.pending == 0


async def test_a_request_is_pending_while_its_images_are_fetched_and_a_client_that_leaves_ends_that(embedding):
    async with embedding() as (worker, _http):
        shelf, messages = Shelf(None), asyncio.Queue()
        body = json.dumps({"model": "org/m", "input": {"image": "https://images.example/x"}}).encode()
        messages.put_nowait({"type": "http.request", "body": body, "more_body": False})
        scope = {"type": "http", "method": "POST", "path": PATH, "headers": [], "query_string": b""}

        async def send(message):
            raise AssertionError(f"nobody is there for {message['type']}")

        endpoint = ImageEmbeddings(serving(worker), shelf)
        request = asyncio.create_task(endpoint(scope, messages.get, send))
        async with asyncio.timeout(20):
            await shelf.fetching.wait()
            assert worker.machine.pending == 1
            messages.put_nowait({"type": "http.disconnect"})
            await shelf.given_up.wait()
            await request
        assert worker.machine.pending == 0


async def test_what_was_fetched_is_held_until_the_answer_and_others_are_told_to_come_again(embedding):
    there = {"image": "https://images.example/x"}
    large = picture(size=(400, 300), kind="WEBP")
    bodies = BodyBudget(len(large) + 200)
    async with embedding() as (worker, _http), beside(worker, Shelf(large), bodies) as fetching:
        worker.capability.preparing.clear()
        worker.capability.prepare_gate.clear()
        first = asyncio.create_task(post(fetching, there))
        assert await asyncio.to_thread(worker.capability.preparing.wait, 20)
        assert bodies.bytes > len(large)
        refused = await post(fetching, there)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        worker.capability.prepare_gate.set()
        assert len(vectors(await first)) == 1
        assert len(vectors(await post(fetching, there))) == 1
        assert (bodies.bytes, worker.machine.pending) == (0, 0)


async def test_large_images_are_prepared_one_by_one_and_small_ones_together(embedding):
    async with embedding() as (worker, http):
        worker.capability.prepared.clear()
        vectors(await post(http, [item(picture(size=(400, 300)))] * 3))
        assert worker.capability.prepared == [1, 1, 1]
        worker.capability.prepared.clear()
        vectors(await post(http, [item(RED)] * 5))
        assert worker.capability.prepared == [5]


@contextmanager
def without_collector():
    """Nothing that was forgotten in a circle is found: what is freed was let go of."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def once_there_is_room(http, given):
    """Ask again after a 429, as clients do: a batch of a request that was refused may still be running."""
    for _attempt in range(200):
        answer = await post(http, given)
        if answer.status_code != 429:
            return answer
    raise AssertionError("an idle worker has no room")


async def test_a_request_of_more_images_than_fit_in_memory_is_refused_for_good_and_others_are_served(embedding):
    one = 3 * 32 * 32 * 4
    async with embedding() as (worker, http), asyncio.timeout(60):
        worker.capability._budget = PixelBudget(4 * one)
        large, small = item(picture(size=(400, 300))), item(RED)  # prepared one by one, and all together
        with without_collector():
            for kind in (large, small, large):
                answer = await once_there_is_room(http, [kind] * 5)
                assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input")
                assert "at most 4 like these in one request" in answer.json()["error"]["message"]
                for _time in range(2):
                    assert len(vectors(await once_there_is_room(http, [kind] * 4))) == 4
        assert worker.machine.pending == 0


async def test_of_a_client_that_leaves_no_further_image_is_decoded(embedding):
    async with embedding() as (worker, http):
        worker.capability.prepared.clear()
        worker.capability.preparing.clear()
        worker.capability.prepare_gate.clear()
        task = asyncio.create_task(post(http, [item(picture(size=(400, 300)))] * 8))
        assert await asyncio.to_thread(worker.capability.preparing.wait, 20)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(20):
            while worker.machine.pending:
                await worker.machine.changed(None)
        worker.capability.prepare_gate.set()
        vectors(await post(http, item(RED)))
        assert worker.capability.prepared == [1, 1]


async def test_health_answers_at_once_while_the_largest_images_are_decoded(embedding):
    largest = {"image": data_url(picture(size=(3000, 3000), kind="WEBP"), "webp")}
    async with embedding() as (worker, http):
        worker.capability.preparing.clear()
        task = asyncio.create_task(post(http, [largest] * 3))
        assert await asyncio.to_thread(worker.capability.preparing.wait, 60)
        waits = []
        while not task.done():
            start = time.perf_counter()
            assert (await http.get("/healthz")).status_code == 200
            waits.append(time.perf_counter() - start)
        assert len(vectors(task.result())) == 3
        assert len(waits) > 20
        assert sorted(waits)[len(waits) // 2] < 0.1, sorted(waits)[-5:]
