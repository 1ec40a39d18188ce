"""The chat request: messages of every kind, bounded; and the answer's bytes."""

import base64
import json

import pytest

from modelpool_worker.errors import InvalidRequestError
from modelpool_worker.generation.request import Message, TextDelta, TextRequest, TokenLogprob
from modelpool_worker.openai.chat import ChatAnswer, parse_chat
from modelpool_worker.openai.generated import GeneratedText, Identity
from modelpool_worker.openai.sampling import Form

SECRET = "swordfish"
PNG = b"\x89PNG\r\n\x1a\n not looked into here"
DATA = "data:image/png;base64," + base64.b64encode(PNG).decode()
IMAGE = {"type": "image_url", "image_url": {"url": DATA, "detail": "low"}}
TEXT = {"type": "text", "text": "hello"}


def parse(messages, *, images=False, **fields):
    request = {"model": "m", "messages": messages} | fields
    return parse_chat(json.dumps(request).encode(), model_name="m", images=images)


def user(content, **fields):
    return [{"role": "user", "content": content} | fields]


@pytest.mark.parametrize(
    ("messages", "read"),
    [
        (user("hello"), [("user", ("hello",))]),
        (user(""), [("user", ("",))]),
        (user([TEXT, TEXT]), [("user", ("hello", "hello"))]),
        (user([IMAGE, TEXT]), [("user", (PNG, "hello"))]),
        (
            [{"role": role, "content": "x"} for role in ("developer", "user", "assistant", "system")],
            [("system", ("x",)), ("user", ("x",)), ("assistant", ("x",)), ("system", ("x",))],
        ),
        (user("x", name="Bob", tool_calls=None, refusal=None, tool_call_id="1"), [("user", ("x",))]),
        (user("x") * 1024, [("user", ("x",))] * 1024),
        (user([IMAGE] * 8), [("user", (PNG,) * 8)]),
    ],
    ids=["text", "empty", "parts", "image", "roles", "further fields", "as many as may be", "as many images as may be"],
)
def test_every_kind_of_message(messages, read):
    request = parse(messages, images=True)
    assert request.messages == tuple(read)
    assert request.texts({}) == [TextRequest(request.sampling, messages=tuple(Message(*each) for each in read))]


def test_a_text_for_every_choice():
    request = parse(user("x"), n=3, seed=5)
    assert (request.size, [text.choice for text in request.texts({})]) == (3, [0, 1, 2])


def test_an_image_that_is_elsewhere_is_put_in_its_place_once_fetched():
    url = {"type": "image_url", "image_url": {"url": "https://images.example/a.png"}}
    request = parse(user([url, TEXT, url]), images=True)
    (wanted,) = request.urls
    (text,) = request.texts({wanted: PNG})
    assert text.messages == (Message("user", (PNG, "hello", PNG)),)


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param(None, id="none"),
        pytest.param([], id="empty"),
        pytest.param(SECRET, id="a string"),
        pytest.param({"role": "user", "content": SECRET}, id="an object"),
        pytest.param([SECRET], id="a string inside"),
        pytest.param(user("x") * 1025, id="too many"),
        pytest.param(user("x" * 1_000_001), id="too long"),
        pytest.param(user("x" * 500_001) * 2, id="too long together"),
        pytest.param(user([TEXT] * 257), id="too many parts"),
        pytest.param(user([IMAGE] * 9), id="too many images"),
        pytest.param([{"content": SECRET}], id="no role"),
        pytest.param([{"role": SECRET, "content": "x"}], id="unknown role"),
        pytest.param([{"role": ["user"], "content": "x"}], id="role is a list"),
        pytest.param([{"role": "tool", "content": SECRET, "tool_call_id": "1"}], id="tool"),
        pytest.param([{"role": "function", "name": SECRET, "content": "x"}], id="function"),
        pytest.param([{"role": "assistant", "content": None, "tool_calls": [{"id": SECRET}]}], id="tool calls"),
        pytest.param(user(None), id="no content"),
        pytest.param(user([]), id="no parts"),
        pytest.param(user(5), id="number"),
        pytest.param(user([SECRET]), id="part is a string"),
        pytest.param(user([{"type": "text"}]), id="no text"),
        pytest.param(user([{"type": "text", "text": 5}]), id="text is a number"),
        pytest.param(user([{"type": ["text"], "text": "x"}]), id="type is a list"),
        pytest.param(user([{"type": "input_audio", "input_audio": {"data": SECRET}}]), id="audio"),
        pytest.param(user([{"type": "file", "file": {"file_id": SECRET}}]), id="file"),
        pytest.param(user([{"type": "image", "image": SECRET}]), id="image of another kind"),
        pytest.param(user([{"type": "image_url", "image_url": DATA}]), id="url is no object"),
        pytest.param(user([{"type": "image_url", "image_url": {"url": 5}}]), id="url is a number"),
        pytest.param(user([{"type": "image_url", "image_url": {}}]), id="no url"),
        pytest.param(user([{"type": "image_url", "image_url": {"url": f"file:///{SECRET}"}}]), id="a local file"),
        pytest.param(user([{"type": "image_url", "image_url": {"url": f"data:text/html,{SECRET}"}}]), id="no image"),
    ],
)
def test_wrong_messages_are_told_what_was_expected(messages):
    with pytest.raises(InvalidRequestError) as refused:
        parse(messages, images=True)
    assert refused.value.param == "messages"
    assert "expected" in str(refused.value)
    assert SECRET not in str(refused.value)


def test_a_model_of_texts_takes_no_images():
    with pytest.raises(InvalidRequestError, match="takes no images"):
        parse(user([TEXT, IMAGE]))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"max_completion_tokens": 5, "max_tokens": -1}, "max_tokens"),
        ({"logprobs": 1}, "logprobs"),
        ({"logprobs": 5}, "logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": True}, "top_logprobs"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"logprobs": False, "top_logprobs": 0}, "top_logprobs"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"functions": [{"name": SECRET}]}, "functions"),
        ({"function_call": {"name": SECRET}}, "function_call"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"chat_template": SECRET}, "chat_template"),
        ({"web_search_options": {}}, "web_search_options"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else None,
)
def test_a_wrong_field_is_refused_by_name(fields, param):
    with pytest.raises(InvalidRequestError) as refused:
        parse(user("x"), **fields)
    assert refused.value.param == param
    assert "expected" in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "max_tokens", "top_logprobs"),
    [
        ({}, None, None),
        ({"max_tokens": 5}, 5, None),
        ({"max_tokens": 5, "max_completion_tokens": 7}, 7, None),
        ({"logprobs": True}, None, 0),
        ({"logprobs": True, "top_logprobs": 20}, None, 20),
        ({"logprobs": False}, None, None),
        ({"tools": [], "tool_choice": "auto", "response_format": {"type": "text"}, "modalities": ["text"]}, None, None),
    ],
    ids=["nothing said", "old name", "new name wins", "logprobs", "top logprobs", "no logprobs", "nothing wanted"],
)
def test_lengths_and_logprobs(fields, max_tokens, top_logprobs):
    sampling = parse(user("x"), **fields).sampling
    assert (sampling.max_tokens, sampling.top_logprobs) == (max_tokens, top_logprobs)


TOKEN = TokenLogprob("é", -0.5, "é".encode(), (TokenLogprob("a", -1.0, b"a"),))


def answer(*, logprobs, **form):
    return ChatAnswer(Identity("chatcmpl-1", 1_700_000_000, "m"), Form(**form), logprobs=logprobs)


def test_a_whole_answer_has_openais_shape():
    text = GeneratedText()
    for delta in (TextDelta("h", 1), TextDelta("é", 1, (TOKEN,)), TextDelta(finish="length")):
        text.add(delta)
    entry = {"token": "é", "logprob": -0.5, "bytes": [0xC3, 0xA9]}
    assert json.loads(b"".join(answer(logprobs=True).whole([text], 3, 2))) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hé", "refusal": None},
                "logprobs": {
                    "content": [entry | {"top_logprobs": [{"token": "a", "logprob": -1.0, "bytes": [97]}]}],
                    "refusal": None,
                },
                "finish_reason": "length",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }


@pytest.mark.parametrize("include_usage", [True, False], ids=["usage", "no usage"])
def test_a_stream_begins_with_the_role_and_ends_with_the_reason(include_usage):
    streamed = answer(logprobs=False, choices=2, stream=True, include_usage=include_usage)
    deltas = [
        (0, TextDelta("a", 1)),
        (1, TextDelta()),
        (1, TextDelta("b", 1, (), "stop")),
        (0, TextDelta(finish="stop")),
    ]
    events = streamed.opening() + b"".join(streamed.events(*each) for each in deltas) + streamed.closing(3, 2)
    lines = [line.removeprefix("data: ") for line in events.decode().split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    chunks = [json.loads(line) for line in lines]
    if include_usage:
        assert chunks.pop()["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert all(("usage" in chunk) is include_usage for chunk in chunks)
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert [(each["index"], each["delta"].get("role"), each["delta"].get("content")) for each in choices] == [
        (0, "assistant", ""),
        (1, "assistant", ""),
        (0, None, "a"),
        (1, None, "b"),
        (1, None, None),
        (0, None, None),
    ]
    assert [each["finish_reason"] for each in choices] == [None, None, None, None, "stop", "stop"]
