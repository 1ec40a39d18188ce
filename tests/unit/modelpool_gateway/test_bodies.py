"""Bodies of requests: what is read, what is refused, and what is held meanwhile."""

import asyncio

import pytest

from modelpool_gateway.bodies import Bodies, BodyBounds
from modelpool_gateway.errors import ClientLeftError, GatewayError


def arriving(*pieces: bytes, more: bool = False):
    """What a server hands over: the pieces, then silence where ``more`` of them were promised."""
    messages = [
        {"type": "http.request", "body": piece, "more_body": more or number < len(pieces)}
        for number, piece in enumerate(pieces, 1)
    ]

    async def receive():
        if not messages:
            await asyncio.Event().wait()
        return messages.pop(0)

    return receive


async def left():
    return {"type": "http.disconnect"}


@pytest.fixture
def bodies() -> Bodies:
    return Bodies(BodyBounds(max_bytes=10, max_bytes_together=15, seconds=0.05))


@pytest.mark.parametrize(
    ("length", "pieces"),
    [
        pytest.param(b"5", (b"hello",), id="with-its-length"),
        pytest.param(None, (b"he", b"", b"llo"), id="in-pieces"),
        pytest.param(b"0", (b"",), id="empty"),
        pytest.param(b"10", (b"x" * 10,), id="as-large-as-may-be"),
    ],
)
async def test_a_body_is_read_whole_and_held_until_it_is_let_go(bodies, length, pieces):
    body = await bodies.read(length, arriving(*pieces))
    assert body.data == b"".join(pieces)
    assert bodies.held == len(body.data)
    body.let_go()
    body.let_go()
    assert bodies.held == 0


@pytest.mark.parametrize(
    ("length", "receive", "status", "sentence"),
    [
        pytest.param(b"11", arriving(), 413, "larger than 10 bytes", id="declared-too-large"),
        pytest.param(b"9" * 400, arriving(), 400, "no number", id="declared-beyond-any-number"),
        pytest.param(b"-1", arriving(), 400, "such as 1024", id="declared-negative"),
        pytest.param(None, arriving(b"x" * 6, b"x" * 5), 413, "larger than 10 bytes", id="grows-too-large"),
        pytest.param(b"9", arriving(b"x", more=True), 408, "within 0.05 s", id="late"),
    ],
)
async def test_what_is_refused_holds_nothing(bodies, length, receive, status, sentence):
    with pytest.raises(GatewayError, match=sentence) as refused:
        await bodies.read(length, receive)
    assert refused.value.status == status
    assert bodies.held == 0


async def test_a_declared_length_is_judged_before_a_byte_is_read(bodies):
    async def never():
        raise AssertionError("nobody asks for the body")

    with pytest.raises(GatewayError, match="larger than"):
        await bodies.read(b"11", never)


@pytest.mark.parametrize("length", [b"8", None], ids=["declared", "as-it-arrives"])
async def test_all_bodies_together_are_bounded_and_room_comes_back(bodies, length):
    first = await bodies.read(b"8", arriving(b"x" * 8))
    with pytest.raises(GatewayError, match="too large together") as refused:
        await bodies.read(length, arriving(b"x" * 8))
    assert (refused.value.status, refused.value.retry_after) == (429, 1)
    assert bodies.held == 8
    first.let_go()
    second = await bodies.read(length, arriving(b"x" * 8))
    assert bodies.held == len(second.data) == 8


async def test_one_body_alone_is_never_too_much():
    bodies = Bodies(BodyBounds(max_bytes=10, max_bytes_together=5))
    assert (await bodies.read(b"10", arriving(b"x" * 5, b"x" * 5))).data == b"x" * 10


async def test_a_client_that_leaves_while_it_sends_is_told_apart(bodies):
    with pytest.raises(ClientLeftError):
        await bodies.read(b"5", left)
    assert bodies.held == 0
