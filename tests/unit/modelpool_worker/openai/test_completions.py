"""The completions request: prompts of every kind, bounded; and the answer's bytes."""

import json
import math

import pytest

from modelpool_worker.errors import InvalidRequestError
from modelpool_worker.generation.request import Sampling, TextDelta, TextRequest, TokenLogprob
from modelpool_worker.openai.completions import CompletionAnswer, parse_completion
from modelpool_worker.openai.generated import GeneratedText, Identity
from modelpool_worker.openai.sampling import Form

SECRET = "swordfish"


def parse(**fields):
    return parse_completion(json.dumps({"model": "m"} | fields).encode(), model_name="m")


@pytest.mark.parametrize(
    ("given", "prompts"),
    [
        ("hello", ("hello",)),
        (["a", "b"], ("a", "b")),
        ([1, 2, 3], ((1, 2, 3),)),
        ([[1], [2, 2**31 - 1]], ((1,), (2, 2**31 - 1))),
        (["x"] * 64, ("x",) * 64),
    ],
    ids=["string", "strings", "token ids", "lists of token ids", "as many as may be"],
)
def test_every_kind_of_prompt(given, prompts):
    assert parse(prompt=given).prompts == prompts


def test_a_text_for_every_choice_of_every_prompt_in_order():
    request = parse(prompt=["a", "b"], n=2, max_tokens=5, seed=1)
    sampling = Sampling(max_tokens=5, seed=1)
    assert request.size == 4
    assert request.texts() == [
        TextRequest(sampling, prompt="a", choice=0),
        TextRequest(sampling, prompt="a", choice=1),
        TextRequest(sampling, prompt="b", choice=0),
        TextRequest(sampling, prompt="b", choice=1),
    ]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        pytest.param({}, "prompt", id="no prompt"),
        pytest.param({"prompt": ""}, "prompt", id="empty"),
        pytest.param({"prompt": []}, "prompt", id="empty list"),
        pytest.param({"prompt": [SECRET, ""]}, "prompt", id="empty in a list"),
        pytest.param({"prompt": [[]]}, "prompt", id="no token ids"),
        pytest.param({"prompt": [[1], []]}, "prompt", id="no token ids in a list"),
        pytest.param({"prompt": [SECRET, [1]]}, "prompt", id="mixed"),
        pytest.param({"prompt": [1, SECRET]}, "prompt", id="a string among ids"),
        pytest.param({"prompt": [1, True]}, "prompt", id="bool is no token"),
        pytest.param({"prompt": [True]}, "prompt", id="only a bool"),
        pytest.param({"prompt": [1, -1]}, "prompt", id="negative token"),
        pytest.param({"prompt": [1, 1.5]}, "prompt", id="fractional token"),
        pytest.param({"prompt": [2**31]}, "prompt", id="huge token"),
        pytest.param({"prompt": {"text": SECRET}}, "prompt", id="object"),
        pytest.param({"prompt": ["x"] * 65}, "prompt", id="too many"),
        pytest.param({"prompt": "x" * 1_000_001}, "prompt", id="too long"),
        pytest.param({"prompt": [1] * 262_145}, "prompt", id="too many tokens"),
        pytest.param({"prompt": "x", "logprobs": 6}, "logprobs", id="too many logprobs"),
        pytest.param({"prompt": "x", "logprobs": -1}, "logprobs", id="negative logprobs"),
        pytest.param({"prompt": "x", "logprobs": True}, "logprobs", id="bool logprobs"),
        pytest.param({"prompt": "x", "echo": True}, "echo", id="echo"),
        pytest.param({"prompt": "x", "suffix": SECRET}, "suffix", id="suffix"),
        pytest.param({"prompt": "x", "best_of": 2}, "best_of", id="best of more than are sent"),
        pytest.param({"prompt": "x", "best_of": True}, "best_of", id="best of a bool"),
    ],
)
def test_a_wrong_request_is_told_what_was_expected(fields, param):
    with pytest.raises(InvalidRequestError) as refused:
        parse(**fields)
    assert refused.value.param == param
    assert "expected" in str(refused.value)
    assert SECRET not in str(refused.value)


def test_what_asks_for_nothing_is_taken():
    assert parse(prompt="x", echo=False, suffix="", best_of=2, n=2).size == 2


TOKENS = (
    TokenLogprob("he", -0.5, b"he", (TokenLogprob("ye", -1.0, b"ye"), TokenLogprob("he", -0.5, b"he"))),
    TokenLogprob("y", -math.inf, b"y"),
)


def answer(*, logprobs, size=1, **form):
    return CompletionAnswer(Identity("cmpl-1", 1_700_000_000, "m"), Form(**form), size=size, logprobs=logprobs)


def test_a_whole_answer_has_openais_shape():
    text = GeneratedText()
    for delta in (TextDelta("he", 1, TOKENS[:1]), TextDelta("y", 1, TOKENS[1:]), TextDelta(finish="stop")):
        text.add(delta)
    assert json.loads(b"".join(answer(logprobs=True).whole([text], 3, 2))) == {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1_700_000_000,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "text": "hey",
                "logprobs": {
                    "tokens": ["he", "y"],
                    "token_logprobs": [-0.5, -9999.0],
                    "top_logprobs": [{"ye": -1.0, "he": -0.5}, {"y": -9999.0}],
                    "text_offset": [0, 2],
                },
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }


def test_the_events_of_a_text_join_to_the_whole_and_count_offsets_on():
    streamed = answer(logprobs=True, size=2, stream=True, include_usage=True)
    deltas = [(1, TextDelta("he", 1, TOKENS[:1])), (0, TextDelta()), (1, TextDelta("y", 1, TOKENS[1:], "length"))]
    events = b"".join(streamed.events(index, delta) for index, delta in deltas) + streamed.closing(3, 2)
    lines = [line.removeprefix("data: ") for line in events.decode().split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    first, second, last = map(json.loads, lines)
    assert [event["choices"][0]["index"] for event in (first, second)] == [1, 1]
    assert "".join(event["choices"][0]["text"] for event in (first, second)) == "hey"
    assert [event["choices"][0]["logprobs"]["text_offset"] for event in (first, second)] == [[0], [2]]
    assert [event["choices"][0]["finish_reason"] for event in (first, second)] == [None, "length"]
    assert (first["usage"], last["choices"], last["usage"]["total_tokens"]) == (None, [], 5)
