"""What the gateway reads of a request."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpool_gateway.request import (
    MAX_KEEP_ALIVE_SECONDS,
    PINNED,
    Asked,
    BadRequestError,
    read_json,
    read_keep_alive,
)


def test_the_model_and_whether_it_streams_are_read_and_all_else_is_the_workers():
    body = orjson.dumps({"model": "org/name:7b", "stream": True, "messages": [{"role": "user"}], "unknown": 1})
    assert read_json(body) == Asked("org/name:7b", stream=True)


@pytest.mark.parametrize("stream", [False, None, 1, "true", []], ids=repr)
def test_only_true_is_a_stream(stream):
    assert read_json(orjson.dumps({"model": "m", "stream": stream})).stream is False


@pytest.mark.parametrize(
    ("body", "sentence", "param"),
    [
        pytest.param(b"", "not JSON", None, id="empty"),
        pytest.param(b"{", "not JSON", None, id="cut"),
        pytest.param(b'"m"', "not an object", None, id="text"),
        pytest.param(b"[1]", "not an object", None, id="list"),
        pytest.param(b"{}", "model is missing", "model", id="no-model"),
        pytest.param(b'{"model": 7}', "model is missing", "model", id="model-no-text"),
        pytest.param(b'{"model": ""}', "model is missing", "model", id="model-empty"),
        pytest.param(b'{"model": "' + b"m" * 97 + b'"}', "longer than 96", "model", id="model-long"),
        pytest.param(b"[" * 200_001, "more than 200000", None, id="brackets"),
        pytest.param(b"[" * 5000, "not JSON", None, id="deep"),
        pytest.param(b'{"model": "m", "keep_alive": []}', "keep_alive is no time", "keep_alive", id="keep-alive"),
        pytest.param(b'{"model": "\xff"}', "not JSON", None, id="no-utf-8"),
    ],
)
def test_what_is_no_request_is_refused_with_a_sentence(body, sentence, param):
    with pytest.raises(BadRequestError, match=sentence) as refused:
        read_json(body)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        (0, 0.0),
        (300, 300.0),
        (1.5, 1.5),
        ("300", 300.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        ("250ms", 0.25),
        ("0s", 0.0),
        (-1, PINNED),
        ("-1", PINNED),
        ("-1m", PINNED),
        (-0.5, PINNED),
        (10**12, MAX_KEEP_ALIVE_SECONDS),
        ("999999h", MAX_KEEP_ALIVE_SECONDS),
    ],
    ids=repr,
)
def test_keep_alive_is_read_as_ollamas_users_know_it(value, seconds):
    assert read_keep_alive(value) == seconds


@pytest.mark.parametrize("value", [True, {}, [], "", "m", "5 m", "5m!", "--5m", "5d", "٣m", "1" * 40, "nan"], ids=repr)
def test_what_is_no_time_is_refused(value):
    with pytest.raises(BadRequestError, match="keep_alive is no time"):
        read_keep_alive(value)


@given(st.text(max_size=80))
def test_any_text_is_a_time_or_refused(text):
    try:
        seconds = read_keep_alive(text)
    except BadRequestError:
        return
    assert seconds is not None
    assert seconds == PINNED or 0 <= seconds <= MAX_KEEP_ALIVE_SECONDS
