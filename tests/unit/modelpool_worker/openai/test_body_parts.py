"""A body may hold so many lists, objects, members and entries, however spelt; what stands in strings is free."""

import json

import pytest

from modelpool_api.body import MAX_ENTRIES, MAX_MEMBERS, MAX_NESTED
from modelpool_worker.errors import InvalidRequestError
from modelpool_worker.openai.body import read_object


def members(count):
    return {f"{number:x}": 1 for number in range(count)}


@pytest.mark.parametrize(
    ("body", "what"),
    [
        pytest.param(json.dumps({"a": [[]] * (MAX_NESTED + 1)}).encode(), "lists and objects", id="lists"),
        pytest.param(json.dumps(members(MAX_MEMBERS + 5)).encode(), "members", id="members"),
        pytest.param(json.dumps(members(MAX_MEMBERS + 5)).replace('":', '"\n\t :').encode(), "members", id="blanks"),
        pytest.param(b'{"a":[' + b"1," * (MAX_ENTRIES + 1) + b"1]}", "entries", id="entries"),
    ],
)
def test_too_many_parts_are_refused_with_the_number_that_is_taken(body, what):
    with pytest.raises(InvalidRequestError, match=rf"too many {what}; expected at most \d+"):
        read_object(body)


@pytest.mark.parametrize("mark", [*"[{:,", '\\"', "\\\\"])
def test_a_text_may_hold_any_number_of_marks(mark):
    text = mark * (MAX_ENTRIES + 10)
    assert read_object(json.dumps({"input": text, "model": "m"}).encode()) == {"input": text, "model": "m"}


def test_the_largest_request_that_is_taken_is_read():
    assert len(read_object(json.dumps(members(MAX_MEMBERS)).encode())) == MAX_MEMBERS
