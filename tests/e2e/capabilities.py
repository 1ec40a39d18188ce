"""The five capabilities as a user sees them: a model from somewhere, questions with answers that can be checked."""

import base64
import io
import math
import operator
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import httpx2
import openai
from PIL import Image

from e2e.installation import Environment
from e2e.repositories import TOKEN, Repository, read_folder
from e2e.team import LONG_TEXT, MODEL, Team
from e2e.watchers import Json

#: Where the worker's image with a model in it has that.
BAKED_PATH = "/opt/models/image_encoder"
CLAIM, SECRET = "models", "hub-token"


@dataclass(frozen=True)
class Case:
    """One capability. ``model`` are fields of a worker's spec.model, made ready in a team's namespace.

    ``ask`` asks and checks the answers, ``ask_long`` asks for something that takes seconds and returns when it is
    there; both get a client and the address that it talks to.
    """

    capability: str
    model: Callable[[Team, Environment], Json]
    ask: Callable[[openai.OpenAI, str], None]
    ask_long: Callable[[openai.OpenAI, str], None]


def client_of(url: str, key: str = "none") -> openai.OpenAI:
    """The official client; a refused connection is tried again: a Service leads to a pod a moment after it is ready."""
    patient = httpx2.HTTPTransport(retries=6)
    plain = openai.DefaultHttpx2Client(trust_env=False, transport=patient)
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=180, http_client=plain)


def hub_folders(tiny: Path, scratch: Path) -> dict[str, Path]:
    """What the hub has besides the real model: a private tiny model, and broken ones."""
    cut, pickled = scratch / "cut", scratch / "pickled"
    shutil.copytree(tiny / "text_decoder", cut)
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    shutil.copytree(tiny / "diffusion", pickled)
    for path in pickled.rglob("*.safetensors"):
        path.rename(path.with_suffix(".bin"))
    return {
        "private-decoder": tiny / "text_decoder",
        "decoder": tiny / "text_decoder",
        "encoder": tiny / "image_encoder",
        "cut-decoder": cut,
        "pickled-pipeline": pickled,
    }


# Where the models come from: every kind of source once


def from_an_image(team: Team, environment: Environment) -> Json:
    return {"source": f"oci://{environment.model_image}"}


def from_a_private_repository(team: Team, environment: Environment) -> Json:
    """A pinned commit, and a token from a Secret."""
    team.secret(SECRET, token=TOKEN)
    commit = Repository(read_folder(Path(environment.tiny_models) / "text_decoder")).commit
    token = {"name": SECRET, "key": "token"}
    return {"source": f"hf://org/private-decoder@{commit}", "tokenSecretRef": token, "dtype": "float32"}


def from_the_workers_own_image(team: Team, environment: Environment) -> Json:
    return {"source": f"file://{BAKED_PATH}"}


def from_a_volume(team: Team, environment: Environment) -> Json:
    team.claim(CLAIM, Path(environment.tiny_models))
    return {"source": f"pvc://{CLAIM}/vision_language", "dtype": "float32"}


def from_a_tiny_image(team: Team, environment: Environment) -> Json:
    return {"source": f"oci://{environment.tiny_image}"}


# What is asked


def ask_for_vectors(client: openai.OpenAI, url: str) -> None:
    """Related texts are closer than others; the client asks for base64 by itself."""
    texts = ["a cat sleeps on the sofa", "a kitten naps on the couch", "the stock market fell"]
    answer = client.embeddings.create(model=MODEL, input=texts)
    cat, kitten, market = (each.embedding for each in answer.data)
    assert cosine(cat, kitten) > 0.5 > cosine(cat, market)
    assert abs(math.hypot(*cat) - 1) < 1e-3


def ask_for_many_vectors(client: openai.OpenAI, url: str) -> None:
    assert len(client.embeddings.create(model=MODEL, input=[LONG_TEXT] * 16).data) == 16


def ask_for_text(client: openai.OpenAI, url: str) -> None:
    """Greedy text is the same whole, in a stream and beside others; another question has another answer."""
    asked: Any = {"model": MODEL, "temperature": 0, "max_tokens": 24}
    told = [[{"role": "user", "content": text}] for text in ("hello", "what colour is the bridge")]
    whole = client.chat.completions.create(messages=told[0], **asked)
    other = client.chat.completions.create(messages=told[1], **asked)
    stream = client.chat.completions.create(
        messages=told[0], stream=True, stream_options={"include_usage": True}, **asked
    )
    chunks = list(stream)
    text = whole.choices[0].message.content
    assert text
    assert text != other.choices[0].message.content
    assert "".join(each.choices[0].delta.content or "" for each in chunks if each.choices) == text
    assert chunks[-1].usage == whole.usage
    assert whole.usage.completion_tokens == 24 or whole.choices[0].finish_reason == "stop"
    several = client.completions.create(prompt=["the red", "the green", "the blue"], n=2, **asked)
    assert [each.index for each in several.choices] == list(range(6))
    assert several.choices[0].text == several.choices[1].text
    assert len({each.text for each in several.choices}) == 3


def ask_for_much_text(client: openai.OpenAI, url: str) -> None:
    prompts = [f"the {number}" for number in range(64)]
    answer = client.completions.create(model=MODEL, prompt=prompts, n=4, max_tokens=400, temperature=1, seed=1)
    assert len(answer.choices) == 256


def ask_for_vectors_of_images(client: openai.OpenAI, url: str) -> None:
    """The same image has the same vector in a JSON body, as an upload and as a plain body; another one has another."""
    image, other = picture(1), picture(2)
    in_json = client.embeddings.create(
        model=MODEL, input=[{"image": data_url(image)}, {"image": data_url(other)}], encoding_format="float"
    )
    vector, another = (each.embedding for each in in_json.data)
    path = f"{url}/v1/embeddings"
    upload = httpx.post(path, files={"image": ("a.png", image, "image/png")}, data={"model": MODEL}, trust_env=False)
    plain = httpx.post(path, content=image, headers={"Content-Type": "image/png"}, trust_env=False)
    for answer in (upload, plain):
        assert answer.status_code == 200, answer.text
        assert answer.json()["data"][0]["embedding"] == vector
    assert cosine(vector, another) < 0.9999
    assert abs(math.hypot(*vector) - 1) < 1e-3


def ask_for_many_vectors_of_images(client: openai.OpenAI, url: str) -> None:
    images = [{"image": data_url(plain_picture(number))} for number in range(12)]
    answer = client.embeddings.create(model=MODEL, input=images, encoding_format="float")
    assert len(answer.data) == 12


def ask_about_images(client: openai.OpenAI, url: str) -> None:
    """Two images have two descriptions, and each the same one again, in a stream too."""

    def about(number: int, **fields: Any) -> Any:
        parts = [
            {"type": "text", "text": "what is this"},
            {"type": "image_url", "image_url": {"url": data_url(picture(number))}},
        ]
        messages: Any = [{"role": "user", "content": parts}]
        return client.chat.completions.create(model=MODEL, messages=messages, temperature=0, max_tokens=24, **fields)

    first, again, second = (about(number).choices[0].message.content for number in (1, 1, 2))
    assert first == again != second
    assert "".join(each.choices[0].delta.content or "" for each in about(1, stream=True) if each.choices) == first


def ask_much_about_an_image(client: openai.OpenAI, url: str) -> None:
    parts = [{"type": "image_url", "image_url": {"url": data_url(picture(1))}}]
    messages: Any = [{"role": "user", "content": parts}]
    answer = client.chat.completions.create(
        model=MODEL, messages=messages, n=8, max_tokens=400, temperature=1.5, seed=1
    )
    assert len(answer.choices) == 8


def ask_for_images(client: openai.OpenAI, url: str) -> None:
    """A seed has its image, alone or beside others; another seed has another one."""

    def draw(n: int, seed: int) -> list[bytes]:
        extra = {"seed": seed, "num_inference_steps": 4}
        answer = client.images.generate(model=MODEL, prompt="a red house", n=n, size="64x64", extra_body=extra)
        return [pixels(base64.b64decode(each.b64_json)) for each in answer.data]

    one, (two, three) = draw(1, 7)[0], draw(2, 7)
    assert len(one) == 64 * 64 * 3
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) <= 2
    assert one != three


def ask_for_fine_images(client: openai.OpenAI, url: str) -> None:
    extra = {"seed": 1, "num_inference_steps": 100}
    answer = client.images.generate(model=MODEL, prompt="a house", n=4, size="64x64", extra_body=extra)
    assert len(answer.data) == 4


CASES = (
    Case("text-embedding", from_an_image, ask_for_vectors, ask_for_many_vectors),
    Case("text-to-text", from_a_private_repository, ask_for_text, ask_for_much_text),
    Case("image-embedding", from_the_workers_own_image, ask_for_vectors_of_images, ask_for_many_vectors_of_images),
    Case("vision", from_a_volume, ask_about_images, ask_much_about_an_image),
    Case("text-to-image", from_a_tiny_image, ask_for_images, ask_for_fine_images),
)


def picture(number: int, side: int = 64) -> bytes:
    """A PNG of random pixels, the same for the same number."""
    image = Image.frombytes("RGB", (side, side), random.Random(number).randbytes(side * side * 3))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def pixels(image: bytes) -> bytes:
    return Image.open(io.BytesIO(image)).convert("RGB").tobytes()


def plain_picture(number: int) -> bytes:
    """A large PNG of one colour: a few kB to send, a while to decode."""
    out = io.BytesIO()
    Image.new("RGB", (2000, 2000), (number, 0, 0)).save(out, "PNG")
    return out.getvalue()


def data_url(image: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(image).decode()


def cosine(one: list[float], two: list[float]) -> float:
    return sum(map(operator.mul, one, two)) / (math.hypot(*one) * math.hypot(*two))
