"""Images as clients see them: a real tiny pipeline, the official client and plain HTTP, over a real connection."""

import asyncio
import base64
import threading
from contextlib import asynccontextmanager
from io import BytesIO

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from modelpool_worker.capabilities.base import LoadRequest
from modelpool_worker.capabilities.text_to_image import TextToImage
from modelpool_worker.openai.images import ImageRequest
from modelpool_worker.web.server import create_server, listen
from tiny_models.diffusion import build
from unit.cut_off import cut_off

pytestmark = pytest.mark.models

PATH = "/v1/images/generations"
ASK = {"model": "org/m", "prompt": "a red cat", "seed": 7, "num_inference_steps": 2}


class Held(TextToImage):
    """The real thing; at the end of every step it waits for the gate."""

    def __init__(self):
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.loading = threading.Event()
        self.step = threading.Event()
        self.batches = []
        self.steps = 0

    def run_batch(self, values, wanted):
        def held():
            self.steps += 1
            self.step.set()
            assert self.gate.wait(30)
            return wanted()

        self.batches.append(len(values))
        return super().run_batch(values, held)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("stable-diffusion")
    build(made)
    return made


@pytest.fixture
def drawing(make_worker, folder):
    """A function that starts a worker that draws; an async context of (worker, client)."""

    @asynccontextmanager
    async def start(**changes):
        settings = {"capability": "text-to-image", "model_source": f"file://{folder}", "dtype": "float32"}
        worker = make_worker(Held(), **(settings | changes))
        life = asyncio.create_task(worker.runner.live())
        await worker.reach("Ready")
        worker.capability.step.clear()
        worker.capability.batches.clear()
        worker.capability.steps = 0
        server, port = create_server(worker.inference), listen("127.0.0.1", 0)
        serving = asyncio.create_task(server.serve(sockets=[port]))
        url = f"http://127.0.0.1:{port.getsockname()[1]}"
        try:
            async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as http:
                yield worker, http
        finally:
            worker.capability.gate.set()
            await cut_off(server, serving)
            port.close()
            life.cancel()
            await asyncio.gather(life, return_exceptions=True)

    return start


@pytest.fixture(scope="module")
def expected(folder):
    """A function that draws without a server."""
    model = TextToImage()
    model.load(LoadRequest(folder, "file:///m", "float32", gpus=0, threads=1))

    def draw(seed, **fields):
        (ready,) = model.prepare([ImageRequest("a red cat", seed, steps=2, **fields)])
        return model.run_batch([ready.value], lambda: True)[0]

    return draw


def pixels(data):
    return np.asarray(Image.open(BytesIO(data)))


def entries(answer):
    assert answer.status_code == 200, answer.text
    return [pixels(base64.b64decode(entry["b64_json"])) for entry in answer.json()["data"]]


def apart(a, b):
    return int(np.abs(a.astype(np.int16) - b.astype(np.int16)).max())


async def until(condition):
    """Wait for what the event loop brings about; the worker has no event for it."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def in_a_step(worker):
    """Wait until an image is half drawn and waits for the gate."""
    assert await asyncio.to_thread(worker.capability.step.wait, 30)


async def test_the_official_client_draws(drawing, expected):
    async with drawing() as (_worker, http):
        client = openai.AsyncOpenAI(base_url=str(http.base_url.join("/v1")), api_key="none", max_retries=0)
        extra = {"seed": 7, "num_inference_steps": 2, "guidance_scale": 3.0, "negative_prompt": "rain"}
        async with client:
            answer = await client.images.generate(
                model="org/m",
                prompt="a red cat",
                n=2,
                size="64x96",
                response_format="b64_json",
                user="somebody",
                extra_body=extra,
            )
    drawn = [pixels(base64.b64decode(entry.b64_json)) for entry in answer.data]
    assert [image.shape for image in drawn] == [(96, 64, 3)] * 2
    for seed, image in zip((7, 8), drawn, strict=True):
        assert apart(image, expected(seed, size=(64, 96), guidance=3.0, negative_prompt="rain")) <= 2
    assert answer.created > 1_700_000_000


async def test_image_i_has_the_seed_plus_i_and_is_the_same_alone(drawing):
    async with drawing() as (_worker, http):
        three = await http.post(PATH, json=ASK | {"n": 3})
        alone = [entries(await http.post(PATH, json=ASK | {"seed": seed}))[0] for seed in (7, 8, 9)]
    assert [entry["seed"] for entry in three.json()["data"]] == [7, 8, 9]
    assert max(map(apart, entries(three), alone)) <= 2
    assert apart(alone[0], alone[1]) > 50


async def test_without_a_seed_each_request_gets_another_image_and_is_told_its_seed(drawing):
    async with drawing() as (_worker, http):
        first, second = [await http.post(PATH, json=ASK | {"seed": None}) for _ in range(2)]
        seed = first.json()["data"][0]["seed"]
        again = await http.post(PATH, json=ASK | {"seed": seed})
    assert seed != second.json()["data"][0]["seed"]
    assert np.array_equal(entries(first)[0], entries(again)[0])


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
async def test_the_image_itself_for_who_asks_for_its_media_type(drawing, expected, kind):
    async with drawing() as (_worker, http):
        headers = {"Accept": f"text/html, image/{kind};q=0.9"}
        answer = await http.post(PATH, json=ASK | {"output_format": kind, "output_compression": 90}, headers=headers)
        several = await http.post(PATH, json=ASK | {"output_format": kind, "n": 2}, headers=headers)
        anything = await http.post(PATH, json=ASK, headers={"Accept": "*/*"})
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, f"image/{kind}")
    image = Image.open(BytesIO(answer.content))
    assert (image.format, image.size) == (kind.upper(), (64, 64))
    if kind == "png":
        assert apart(np.asarray(image), expected(7)) <= 2
    assert several.status_code == 400
    assert several.json()["error"]["param"] == "n"
    assert anything.headers["Content-Type"] == "application/json"


async def test_requests_that_may_share_a_batch_do(drawing, expected):
    async with drawing() as (worker, http):
        worker.capability.gate.clear()
        first = asyncio.create_task(http.post(PATH, json=ASK))
        await in_a_step(worker)
        fields = ({"seed": 8}, {"seed": 9}, {"num_inference_steps": 1})
        others = [asyncio.create_task(http.post(PATH, json=ASK | each)) for each in fields]
        await until(lambda: sum(bool(job.waiting) for job in worker.queue._jobs) == 3)
        worker.capability.gate.set()
        drawn = [entries(await task)[0] for task in (first, *others)]
    assert sorted(worker.capability.batches) == [1, 1, 2]
    assert max(apart(image, expected(seed)) for image, seed in zip(drawn[:3], (7, 8, 9), strict=True)) <= 2


async def test_health_answers_while_an_image_is_drawn(drawing):
    """The image cannot be finished before the probes have been answered: the gate is opened after them."""
    async with drawing() as (worker, http):
        worker.capability.gate.clear()
        request = asyncio.create_task(http.post(PATH, json=ASK))
        await in_a_step(worker)
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/readyz")).json() == {"state": "Processing"}
        assert not request.done()
        worker.capability.gate.set()
        assert (await request).status_code == 200


async def test_a_client_that_leaves_frees_its_place_at_the_next_step(drawing):
    """A hundred steps were asked for; none of them comes after the one in which the client left."""
    async with drawing() as (worker, http):
        before = await http.post(PATH, json=ASK)
        worker.capability.step.clear()
        worker.capability.gate.clear()
        long = asyncio.create_task(http.post(PATH, json=ASK | {"num_inference_steps": 100}))
        await in_a_step(worker)
        long.cancel()
        await asyncio.gather(long, return_exceptions=True)
        await until(lambda: worker.machine.pending == 0)
        worker.capability.gate.set()
        answer = await http.post(PATH, json=ASK)
        left = worker.metrics.registry.get_sample_value("modelpool_worker_requests_total", {"outcome": "client_left"})
        batches = worker.metrics.registry.get_sample_value("modelpool_worker_batch_items_count")
    assert np.array_equal(entries(answer)[0], entries(before)[0])
    assert left == 1
    assert batches == 2  # the abandoned one is none
    assert worker.capability.steps == 2 + 1 + 2
    assert worker.machine.pending == 0


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"size": "65x64"}, 400, "size"),
        ({"size": "2048x2048", "n": 8}, 400, "n"),
        ({"n": 9}, 400, "n"),
        ({"num_inference_steps": 10**9}, 400, "num_inference_steps"),
        ({"prompt": "swordfish" * 1000}, 400, "prompt"),
        ({"response_format": "url"}, 400, "response_format"),
        ({"model": "other"}, 404, "model"),
        ({"padding": "x" * 300_000}, 413, None),
    ],
    ids=["odd size", "too many pixels", "too many", "steps", "long prompt", "url", "another model", "large body"],
)
async def test_what_is_refused_leaves_the_worker_ready(drawing, fields, status, param):
    async with drawing() as (worker, http):
        refused = await http.post(PATH, json=ASK | fields)
        assert (refused.status_code, refused.json()["error"]["param"]) == (status, param)
        assert "swordfish" not in refused.text
        assert worker.capability.batches == []
        assert (await http.post(PATH, json=ASK)).status_code == 200
