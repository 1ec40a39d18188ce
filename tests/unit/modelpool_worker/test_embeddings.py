"""The embeddings request and answer: bounds, shapes, and texts that are ours."""

import base64
import json

import numpy as np
import pytest

from modelpool_worker.errors import InvalidRequestError, ModelNotFoundError
from modelpool_worker.openai.embeddings import EmbeddingRequest, encode_answer, parse_request

SECRET = "swordfish"


def parse(**fields):
    return parse_request(json.dumps({"model": "m"} | fields).encode(), model_name="m", vector_size=4)


@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        ("hello", ("hello",)),
        (["a", "b"], ("a", "b")),
        ([1, 2, 3], ([1, 2, 3],)),
        ([[1], [2, 3]], ([1], [2, 3])),
    ],
    ids=["string", "strings", "token ids", "lists of token ids"],
)
def test_every_kind_of_input(given, inputs):
    assert parse(input=given, user="me", unknown={"x": [1]}) == EmbeddingRequest(inputs, False, None)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        pytest.param({}, "input", id="no input"),
        pytest.param({"input": ""}, "input", id="empty string"),
        pytest.param({"input": [SECRET, ""]}, "input", id="empty string in a list"),
        pytest.param({"input": []}, "input", id="empty list"),
        pytest.param({"input": [[]]}, "input", id="empty token list"),
        pytest.param({"input": [SECRET, 1]}, "input", id="mixed"),
        pytest.param({"input": [True]}, "input", id="bool is no token"),
        pytest.param({"input": [1, -1]}, "input", id="negative token"),
        pytest.param({"input": [1, 1.5]}, "input", id="fractional token"),
        pytest.param({"input": {"text": SECRET}}, "input", id="object"),
        pytest.param({"input": ["x"] * 2049}, "input", id="too many"),
        pytest.param({"input": "x" * 1_000_001}, "input", id="too long"),
        pytest.param({"input": [1] * 32_769}, "input", id="too many tokens"),
        pytest.param({"input": "x", "dimensions": 0}, "dimensions", id="no dimension"),
        pytest.param({"input": "x", "dimensions": 5}, "dimensions", id="more dimensions than there are"),
        pytest.param({"input": "x", "dimensions": True}, "dimensions", id="bool dimensions"),
        pytest.param({"input": "x", "encoding_format": SECRET}, "encoding_format", id="unknown encoding"),
        pytest.param({"input": "x", "model": 3}, "model", id="model is no string"),
    ],
)
def test_a_wrong_request_is_told_what_was_expected(fields, param):
    with pytest.raises(InvalidRequestError) as refused:
        parse(**fields)
    assert refused.value.status == 400
    assert refused.value.param == param
    assert "expected" in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"\xff",
        b'{"a":NaN}',
        b'{"model":"m","input":"\\ud800"}',
        b"[" * 4_000_000,
        b"[" * 2000 + b"]" * 2000,
        b'{"model":"m","input":[' + b"[]," * 1_000_000 + b"[]]}",
        b'{"model":"m","input":"' + b"[" * 5000 + b'\\"' * 1_000_000,
    ],
    ids=["empty", "cut", "list", "string", "not text", "nan", "surrogate", "deep", "deeper", "wide", "never ends"],
)
def test_a_body_that_is_no_request(body):
    with pytest.raises(InvalidRequestError):
        parse_request(body, model_name="m", vector_size=4)


def test_brackets_inside_of_text_are_text():
    text = '[{"\\' * 5000
    assert parse(input=text).inputs == (text,)


def test_another_model_is_not_found():
    with pytest.raises(ModelNotFoundError) as refused:
        parse(model=SECRET, input="x")
    assert refused.value.body()["error"]["code"] == "model_not_found"
    assert SECRET not in str(refused.value)


VECTORS = [np.array([3, 4, 12, 0], dtype=np.float32), np.array([0, 0, 1, 0], dtype=np.float32)]


def answer(**fields):
    return json.loads(encode_answer(parse(input="x", **fields), VECTORS, model_name="m", tokens=7))


def test_the_answer_as_numbers():
    assert answer() == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [3, 4, 12, 0]},
            {"object": "embedding", "index": 1, "embedding": [0, 0, 1, 0]},
        ],
        "model": "m",
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }


def test_base64_is_little_endian_float32():
    raw = base64.b64decode(answer(encoding_format="base64")["data"][0]["embedding"])
    assert np.frombuffer(raw, dtype="<f4").tolist() == [3, 4, 12, 0]


def test_fewer_dimensions_are_made_length_one_again_and_zeros_stay_zeros():
    assert [entry["embedding"] for entry in answer(dimensions=2)["data"]] == [pytest.approx([0.6, 0.8]), [0, 0]]
