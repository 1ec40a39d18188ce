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
    read_request,
)


def test_the_model_and_whether_it_streams_are_read_and_all_else_is_the_workers():
    body = orjson.dumps({"model": "org/name:7b", "stream": True, "messages": [{"role": "user"}], "unknown": 1})
    assert read_json(body) == Asked("org/name:7b", stream=True)


def test_what_stands_in_a_text_is_no_part():
    assert read_json(orjson.dumps({"model": "m", "input": "[{:," * 1_100_000})) == Asked("m")


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
        pytest.param(b"[" * 4097, "too many lists and objects", None, id="brackets"),
        pytest.param(b"[" * 4000, "not JSON", None, id="deep"),
        pytest.param(b"{" + b'"":0,' * 65_537 + b'"":0}', "too many members", None, id="members"),
        pytest.param(b'{"a":[' + b"1," * 1_048_577 + b"1]}", "too many entries", None, id="entries"),
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


def form(*parts: tuple[str, bytes]) -> bytes:
    written = [
        b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), data)
        for name, data in parts
    ]
    return b"".join(written) + b"--b--\r\n"


FORM = "multipart/form-data; boundary=b"
CONTENTS = [
    pytest.param("application/json", "", b'{"model": "m"}', id="json"),
    pytest.param("Application/JSON; charset=utf-8", "", b'{"model": "m"}', id="json-in-another-spelling"),
    pytest.param("application/vnd.api+json", "", b'{"model": "m"}', id="json-of-a-kind"),
    pytest.param("", "", b'{"model": "m"}', id="no-content-type"),
    pytest.param(FORM, "", form(("image", b"\x89PNG" * 50_000), ("model", b"m")), id="form"),
    pytest.param(FORM, "", form(("model", b"other"), ("model", b"m")), id="the-last-of-a-forms-fields"),
    pytest.param("image/png", "dimensions=8&model=m", b"\x89PNG", id="image"),
    pytest.param("image/webp", "model=other&model=m", b"RIFF", id="the-last-of-a-querys-fields"),
]


@pytest.mark.parametrize(("content_type", "query", "body"), CONTENTS)
def test_the_model_is_found_in_any_content_that_workers_take(content_type, query, body):
    upload = content_type.startswith(("multipart/", "image/"))
    assert read_request(content_type, query, body) == Asked("m", upload=upload)


NO_CONTENTS = [
    pytest.param("text/plain", "", b'{"model": "m"}', 415, "expected one of application/json", id="text"),
    pytest.param("application/x-www-form-urlencoded", "", b"model=m", 415, "not taken", id="urlencoded"),
    pytest.param("image/gif", "model=m", b"GIF89a", 415, "image/png", id="another-image"),
    pytest.param("image/png", "", b"\x89PNG", 400, r"\?model=clip", id="image-without-a-model"),
    pytest.param("image/png", "&".join(["a=1"] * 17), b"\x89PNG", 400, "query cannot be read", id="long-query"),
    pytest.param("image/png", "model=" + "m" * 97, b"\x89PNG", 400, "longer than 96", id="image-of-a-long-name"),
    pytest.param("multipart/form-data", "", form(("model", b"m")), 400, "no boundary", id="no-boundary"),
    pytest.param(FORM, "", form(("image", b"x")), 400, "model is missing", id="form-without-a-model"),
    pytest.param(FORM, "", form(("model", b"m" * 1025)), 400, "longer than 1024", id="form-of-a-long-name"),
    pytest.param(FORM, "", form(("model", b"m"))[:-6], 400, "cut short", id="form-cut"),
    pytest.param(FORM, "", b"--c\r\n\r\n", 400, "cannot be read", id="another-boundary"),
    pytest.param(FORM, "", form(*[("x", b"")] * 81), 400, "more than 80 fields", id="many-fields"),
    pytest.param(FORM, "", form(("x" * 5000, b"")), 400, "cannot be read", id="endless-header"),
]


@pytest.mark.parametrize(("content_type", "query", "body", "status", "sentence"), NO_CONTENTS)
def test_other_content_is_refused_with_a_sentence(content_type, query, body, status, sentence):
    with pytest.raises(BadRequestError, match=sentence) as refused:
        read_request(content_type, query, body)
    assert refused.value.status == status


@given(st.binary(max_size=300))
def test_any_body_is_a_form_or_refused(body):
    with pytest.raises(BadRequestError):
        read_request(FORM, "", body)
