"""Forms, read against what httpx writes, and against nonsense."""

import random
import time
from contextlib import suppress

import httpx
import pytest

from modelpool_worker.errors import InvalidRequestError
from modelpool_worker.openai.multipart import Part, read_parts


def written(files, data=None):
    """Return body and Content-Type as httpx writes them."""
    request = httpx.Request("POST", "http://worker", data=data or {}, files=files)
    return request.read(), request.headers["Content-Type"]


def test_fields_and_files_come_back_in_order_byte_by_byte():
    every = bytes(range(256)) * 300 + b"\r\n--\r\n\r\n--x"
    body, kind = written([("image", ('ü "x".png', every)), ("image", b""), ("é", b"\r\n")], {"model": "org/m"})
    assert read_parts(body, kind) == [
        Part("model", b"org/m"),
        Part("image", every),
        Part("image", b""),
        Part("é", b"\r\n"),
    ]


def test_a_boundary_may_be_quoted_and_the_end_may_be_followed_by_more():
    body = b'--a b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n--a b--\r\nepilogue'
    assert read_parts(body, 'multipart/form-data; boundary="a b"') == [Part("x", b"1")]


def test_a_form_cut_anywhere_is_refused():
    body, kind = written({"image": b"picture" * 20}, {"model": "m"})
    # what follows the last boundary's first hyphen says nothing more
    for length in range(len(body) - 4):
        with pytest.raises(InvalidRequestError):
            read_parts(body[:length], kind)


def test_a_damaged_form_is_read_or_refused_and_nothing_else():
    seed = random.randrange(10**9)
    print("seed", seed)
    chance = random.Random(seed)
    body, kind = written([("image", b"picture"), ("file", b"other")], {"model": "m"})
    for _ in range(3000):
        broken = bytearray(body)
        for _ in range(chance.randint(1, 5)):
            place = chance.randrange(len(broken))
            broken[place : place + chance.randint(0, 2)] = chance.randbytes(chance.randint(0, 2))
        with suppress(InvalidRequestError):
            read_parts(bytes(broken), kind)


@pytest.mark.parametrize("filling", [b"\r", b"\r\n", b"\r\n-", b"\r\n--", b"\r\n--boundar", b"-", b"\0"], ids=repr)
def test_what_looks_like_a_boundary_over_and_over_takes_no_longer(filling):
    size = 2_000_000
    content = filling * (size // len(filling))
    head = b'--boundary\r\nContent-Disposition: form-data; name="x"\r\n\r\n'
    start = time.process_time()
    (part,) = read_parts(head + content + b"\r\n--boundary--\r\n", "multipart/form-data; boundary=boundary")
    assert part.data == content
    assert time.process_time() - start < 5
