"""The image endpoint's request and answer: bytes in, bytes out."""

import base64
import json

import orjson
import pytest

from modelpool_worker.errors import InvalidRequestError, ModelNotFoundError
from modelpool_worker.openai.images import MAX_SEED, ImageRequest, encode_answer, parse_request


def parse(**fields):
    body = orjson.dumps({"model": "org/m", "prompt": "a cat"} | fields)
    return parse_request(body, model_name="org/m", any_seed=77)


def test_a_prompt_is_enough():
    request = parse()
    assert request.images == (ImageRequest("a cat", seed=77),)
    assert (request.media_type, request.quality) == ("image/png", 100)


def test_every_field():
    request = parse(
        n=2,
        size="512x768",
        seed=5,
        num_inference_steps=4,
        guidance_scale=3,
        negative_prompt="rain",
        output_format="jpeg",
        output_compression=80,
    )
    assert request.images == tuple(ImageRequest("a cat", seed, (512, 768), 4, 3.0, "rain") for seed in (5, 6))
    assert (request.media_type, request.quality) == ("image/jpeg", 80)


@pytest.mark.parametrize(
    "fields",
    [
        {"size": "auto"},
        {"size": None, "n": None, "seed": None, "num_inference_steps": None, "guidance_scale": None},
        {"negative_prompt": ""},
        {"negative_prompt": None, "output_format": None, "output_compression": None},
        {"response_format": "b64_json"},
        {"stream": False, "partial_images": 0},
        {"quality": "auto", "background": "opaque", "moderation": "low", "style": None},
        {"quality": "standard", "user": "me", "unheard_of": [1, 2]},
    ],
    ids=str,
)
def test_what_changes_nothing(fields):
    assert parse(**fields) == parse()


@pytest.mark.parametrize(
    ("fields", "param", "expected"),
    [
        ({"prompt": None}, "prompt", "a cat on a bridge"),
        ({"prompt": ""}, "prompt", "a cat on a bridge"),
        ({"prompt": ["a cat"]}, "prompt", "not a string"),
        ({"prompt": "swordfish" * 500}, "prompt", "4500 characters; expected at most 4000"),
        ({"negative_prompt": 1}, "negative_prompt", "not a string"),
        ({"negative_prompt": "swordfish" * 500}, "negative_prompt", "at most 4000"),
        ({"n": 0}, "n", "1 to 8"),
        ({"n": 9}, "n", "1 to 8"),
        ({"n": 1.0}, "n", "1 to 8"),
        ({"n": True}, "n", "1 to 8"),
        ({"n": "2"}, "n", "1 to 8"),
        ({"size": "512"}, "size", "512x512"),
        ({"size": "swordfish"}, "size", "512x512"),
        ({"size": "512x512x512"}, "size", "512x512"),
        ({"size": "512×512"}, "size", "512x512"),
        ({"size": "٥١٢x512"}, "size", "512x512"),
        ({"size": "-512x512"}, "size", "512x512"),
        ({"size": "0512x512"}, "size", "512x512"),
        ({"size": "32x512"}, "size", "64 to 2048"),
        ({"size": "512x4096"}, "size", "64 to 2048"),
        ({"size": "9" * 100_000 + "x512"}, "size", "64 to 2048"),
        ({"size": [512, 512]}, "size", "512x512"),
        ({"size": 512}, "size", "512x512"),
        ({"size": "2048x2048", "n": 3}, "n", "expected at most 8388608"),
        ({"size": "2048x1024", "n": 5}, "n", "expected at most 8388608"),
        ({"seed": -1}, "seed", "from 0"),
        ({"seed": MAX_SEED + 1}, "seed", "from 0"),
        ({"seed": 2**64 - 1}, "seed", "from 0"),
        ({"seed": 1.5}, "seed", "from 0"),
        ({"seed": True}, "seed", "from 0"),
        ({"num_inference_steps": 0}, "num_inference_steps", "1 to 150"),
        ({"num_inference_steps": 151}, "num_inference_steps", "1 to 150"),
        ({"num_inference_steps": "4"}, "num_inference_steps", "1 to 150"),
        ({"guidance_scale": -0.1}, "guidance_scale", "0 to 50"),
        ({"guidance_scale": 1e300}, "guidance_scale", "0 to 50"),
        ({"guidance_scale": "7"}, "guidance_scale", "0 to 50"),
        ({"guidance_scale": True}, "guidance_scale", "0 to 50"),
        ({"response_format": "url"}, "response_format", "b64_json"),
        ({"response_format": 1}, "response_format", "b64_json"),
        ({"output_format": "gif"}, "output_format", '"png", "jpeg" or "webp"'),
        ({"output_format": ["png"]}, "output_format", '"png", "jpeg" or "webp"'),
        ({"output_compression": 101}, "output_compression", "0 to 100"),
        ({"stream": True}, "stream", "images come whole"),
        ({"partial_images": 2}, "partial_images", "images come whole"),
        ({"quality": "hd"}, "quality", "num_inference_steps"),
        ({"quality": {}}, "quality", "num_inference_steps"),
        ({"style": "vivid"}, "style", "in the prompt"),
        ({"background": "transparent"}, "background", "opaque"),
        ({"moderation": "swordfish"}, "moderation", "auto"),
        ({"model": None}, "model", "org/m"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_refused(fields, param, expected):
    with pytest.raises(InvalidRequestError) as error:
        parse(**fields)
    assert error.value.param == param
    assert expected in str(error.value)
    assert "swordfish" not in str(error.value)


def test_another_model():
    with pytest.raises(ModelNotFoundError, match="org/m"):
        parse(model="swordfish")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"a cat"', b"\xff"], ids=repr)
def test_a_body_that_is_no_object(body):
    with pytest.raises(InvalidRequestError):
        parse_request(body, model_name="org/m", any_seed=0)


def test_the_largest_seed_leaves_room_for_all_images():
    assert parse(seed=MAX_SEED, n=8).images[-1].seed < 2**63


def test_the_answer():
    request = parse(n=2, seed=5)
    answer = json.loads(encode_answer(request, [b"one", b"two"], size=(64, 128), created=1_700_000_000))
    assert [base64.b64decode(entry["b64_json"]) for entry in answer["data"]] == [b"one", b"two"]
    assert [entry["seed"] for entry in answer["data"]] == [5, 6]
    assert (answer["created"], answer["output_format"], answer["size"]) == (1_700_000_000, "png", "64x128")
