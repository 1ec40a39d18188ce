"""Fields that chat and completions share: every number has bounds, and what is not done is refused by name."""

import json

import pytest

from modelpool_worker.errors import InvalidRequestError, ModelNotFoundError
from modelpool_worker.generation.request import Sampling
from modelpool_worker.openai.chat import parse_chat
from modelpool_worker.openai.completions import parse_completion
from modelpool_worker.openai.sampling import Form

SECRET = "swordfish"


def chat(**fields):
    request = {"model": "m", "messages": [{"role": "user", "content": SECRET}]} | fields
    return parse_chat(json.dumps(request).encode(), model_name="m", images=False)


def completion(**fields):
    return parse_completion(json.dumps({"model": "m", "prompt": SECRET} | fields).encode(), model_name="m")


BOTH = pytest.mark.parametrize("parse", [chat, completion], ids=["chat", "completions"])


@BOTH
@pytest.mark.parametrize(
    ("fields", "sampling"),
    [
        ({}, {}),
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"temperature": 2, "top_p": 0.001}, {"temperature": 2.0, "top_p": 0.001}),
        ({"presence_penalty": -2, "frequency_penalty": 2.0}, {"presence_penalty": -2.0, "frequency_penalty": 2.0}),
        ({"seed": -(2**63)}, {"seed": -(2**63)}),
        ({"seed": 2**63 - 1, "max_tokens": 1_048_576}, {"seed": 2**63 - 1, "max_tokens": 1_048_576}),
        ({"stop": "."}, {"stop": (".",)}),
        ({"stop": ["a", "b", "c", "d" * 256]}, {"stop": ("a", "b", "c", "d" * 256)}),
        ({"stop": []}, {}),
        (dict.fromkeys(("temperature", "top_p", "seed", "stop", "n", "stream", "stream_options", "logit_bias")), {}),
    ],
    ids=[
        "nothing said",
        "greedy",
        "edges",
        "penalties",
        "least seed",
        "largest",
        "one stop",
        "stops",
        "no stop",
        "nulls",
    ],
)
def test_how_tokens_are_chosen(parse, fields, sampling):
    default = {"max_tokens": None if parse is chat else 16}
    assert parse(**fields).sampling == Sampling(**(default | sampling))


@BOTH
@pytest.mark.parametrize(
    ("fields", "form"),
    [
        ({}, Form()),
        ({"n": 8}, Form(choices=8)),
        ({"stream": True}, Form(stream=True)),
        ({"stream": True, "stream_options": {}}, Form(stream=True)),
        ({"stream": True, "stream_options": {"include_usage": True, "x": 1}}, Form(stream=True, include_usage=True)),
    ],
    ids=["nothing said", "choices", "stream", "empty options", "usage"],
)
def test_in_what_form_the_answer_comes(parse, fields, form):
    assert parse(**fields).form == form


@BOTH
def test_what_changes_nothing_in_the_answer_is_ignored(parse):
    ignored = {"user": "me", "metadata": {"a": "b"}, "store": True, "service_tier": "auto", "unknown": [1]}
    neutral = {"logit_bias": {}, "top_k": -1, "min_p": 0, "repetition_penalty": 1.0, "ignore_eos": False}
    assert parse(**ignored, **neutral) == parse()


WRONG = {
    "n": [0, 9, -1, 1.0, True, "2", 10**30, []],
    "max_tokens": [0, -1, 1.5, True, "5", 1_048_577, 10**30],
    "temperature": [-0.1, 2.1, True, "1", [], {}, 10**300],
    "top_p": [0, -1, 1.1, True, "1"],
    "presence_penalty": [-2.1, 2.1, False, "0"],
    "frequency_penalty": [-2.1, 2.1, True, "0"],
    "seed": [2**63, -(2**63) - 1, 1.5, True, SECRET, 10**30],
    "stop": ["", 1, ["a", ""], [1], ["a"] * 5, "x" * 257, {"a": 1}, [["a"]]],
    "stream": [1, "true", [], "false"],
    "stream_options": [{}, {"include_usage": True}],
    "logit_bias": [{"50256": -100}, [], SECRET],
    "top_k": [1, 50, SECRET, True],
    "min_p": [0.1],
    "repetition_penalty": [1.1, True],
    "ignore_eos": [True],
    "guided_json": [{"type": "object"}],
    "structured_outputs": [{"json": {}}],
}


@BOTH
@pytest.mark.parametrize(
    ("name", "value"),
    [pytest.param(name, value, id=f"{name}={value!r:.20}") for name in WRONG for value in WRONG[name]],
)
def test_a_wrong_value_is_refused_by_name(parse, name, value):
    with pytest.raises(InvalidRequestError) as refused:
        parse(**{name: value})
    assert refused.value.param == name
    assert "expected" in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("parse", "fields", "param"),
    [
        (chat, {"max_tokens": 172_032, "logprobs": True}, None),
        (chat, {"max_tokens": 172_033, "logprobs": True}, "logprobs"),
        (chat, {"max_tokens": 8192, "logprobs": True, "top_logprobs": 20}, None),
        (chat, {"max_tokens": 8193, "logprobs": True, "top_logprobs": 20}, "logprobs"),
        (chat, {"max_tokens": 4097, "logprobs": True, "top_logprobs": 20, "n": 2}, "logprobs"),
        (chat, {"n": 8, "logprobs": True, "top_logprobs": 20}, None),
        (completion, {"prompt": ["x"] * 64, "n": 8, "logprobs": 5}, None),
        (chat, {"max_tokens": 8193, "logprobs": True, "top_logprobs": 20, "stream": True}, None),
        (chat, {"max_tokens": 131_072, "n": 8}, None),
        (chat, {"max_tokens": 131_073, "n": 8}, "max_tokens"),
        (chat, {"max_tokens": 131_073, "n": 8, "stream": True}, None),
        (completion, {"prompt": ["x"] * 64, "max_tokens": 448, "logprobs": 5}, None),
        (completion, {"prompt": ["x"] * 64, "max_tokens": 449, "logprobs": 5}, "logprobs"),
        (completion, {"prompt": ["x"] * 64, "n": 8, "max_tokens": 2048}, None),
        (completion, {"prompt": ["x"] * 64, "n": 8, "max_tokens": 2049}, "max_tokens"),
    ],
    ids=[
        "chosen tokens",
        "too many chosen tokens",
        "likeliest tokens",
        "too many likeliest tokens",
        "too many for two texts",
        "the most there is to ask for, nothing said about the length",
        "the most there is to ask for of completions",
        "logprobs of a stream",
        "the longest texts",
        "too long texts",
        "long texts as streams",
        "logprobs of many prompts",
        "too many logprobs of many prompts",
        "many prompts",
        "too much of many prompts",
    ],
)
def test_an_answer_that_is_held_whole_is_bounded_by_its_tokens_and_logprob_entries(parse, fields, param):
    if param is None:
        parse(**fields)
        return
    with pytest.raises(InvalidRequestError, match=r'expected texts × max_tokens .*"stream": true') as refused:
        parse(**fields)
    assert (refused.value.param, refused.value.status) == (param, 400)


def test_the_length_that_is_advised_for_logprobs_is_taken():
    fields = {"n": 7, "logprobs": True, "top_logprobs": 20}
    with pytest.raises(InvalidRequestError, match='"max_tokens": 1170,'):
        chat(**fields, max_tokens=1171)
    assert chat(**fields, max_tokens=1170).size == 7


@BOTH
@pytest.mark.parametrize("options", [1, [], "x", {"include_usage": 1}], ids=repr)
def test_wrong_stream_options_are_refused(parse, options):
    with pytest.raises(InvalidRequestError, match="expected"):
        parse(stream=True, stream_options=options)


@BOTH
@pytest.mark.parametrize("model", [None, "", 3, "other"], ids=repr)
def test_the_model_must_be_the_one_that_is_served(parse, model):
    with pytest.raises((InvalidRequestError, ModelNotFoundError)) as refused:
        parse(model=model)
    assert refused.value.param == "model"


@pytest.mark.parametrize("parse", [parse_chat, parse_completion], ids=["chat", "completions"])
@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b"\xff", b'{"model":"m","temperature":NaN}', b'{"model":"m","n":1e999}', b"[" * 4_000_000],
    ids=["empty", "list", "cut", "not text", "nan", "infinite", "deep"],
)
def test_a_body_that_is_no_object_is_refused(parse, body):
    arguments = {"images": False} if parse is parse_chat else {}
    with pytest.raises(InvalidRequestError, match="expected"):
        parse(body, model_name="m", **arguments)
