"""Requests that wait for a worker of their model."""

import asyncio

import pytest

from modelpool_gateway.waiting_room import Again, Bounds, RoomFullError, WaitedTooLongError, WaitingRoom
from unit.modelpool_gateway.site import until


class Answers:
    """What a look finds: set by the test."""

    def __init__(self) -> None:
        self.value: str | None = None
        self.error: Exception | None = None
        self.looks = 0

    def __call__(self) -> str | None:
        self.looks += 1
        if self.error is not None:
            raise self.error
        return self.value


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def room() -> WaitingRoom[str]:
    return WaitingRoom(Bounds(per_model=3, in_all=4))


async def test_what_is_there_already_is_not_waited_for(room):
    look = Answers()
    look.value = "worker"
    assert await room.wait("m", look, 10) == "worker"
    assert len(room) == 0


async def test_all_who_wait_are_told_when_it_is_there(room):
    look = Answers()
    tasks = [asyncio.create_task(room.wait("m", look, 10)) for _ in range(3)]
    await settle()
    room.changed("m")  # nothing yet
    await settle()
    assert room.waiting_for("m") == 3
    look.value = "worker"
    room.changed("m")
    assert await asyncio.gather(*tasks) == ["worker"] * 3
    assert len(room) == 0


async def test_news_of_one_model_disturb_nobody_who_waits_for_another(room):
    look = Answers()
    task = asyncio.create_task(room.wait("m", look, 10))
    await settle()
    looks = look.looks
    room.changed("other")
    assert look.looks == looks
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_becomes_of_it_instead_is_raised_at_once(room):
    look = Answers()
    task = asyncio.create_task(room.wait("m", look, 10))
    await settle()
    look.error = ValueError("the worker failed: OOMKilled")
    room.changed("m")
    with pytest.raises(ValueError, match="OOMKilled"):
        await task
    assert len(room) == 0


async def test_nobody_waits_longer_than_his_time(room):
    with pytest.raises(WaitedTooLongError):
        await room.wait("m", Answers(), 0.01)
    assert len(room) == 0


async def test_more_than_may_wait_for_one_model_or_in_all_are_refused(room):
    look = Answers()
    tasks = [asyncio.create_task(room.wait("m", look, 10)) for _ in range(3)]
    await settle()
    with pytest.raises(RoomFullError):
        await room.wait("m", look, 10)
    tasks.append(asyncio.create_task(room.wait("n", look, 10)))
    await settle()
    with pytest.raises(RoomFullError):
        await room.wait("o", look, 10)
    look.value = "worker"
    room.changed("m")
    room.changed("n")
    assert await asyncio.gather(*tasks) == ["worker"] * 4


async def test_a_client_that_leaves_gives_his_place_back_at_once(room):
    look = Answers()
    tasks = [asyncio.create_task(room.wait("m", look, 10)) for _ in range(3)]
    await settle()
    tasks[0].cancel()
    await asyncio.gather(tasks[0], return_exceptions=True)
    assert room.waiting_for("m") == 2


async def test_a_client_that_leaves_in_the_instant_of_the_news_is_gone_and_the_others_are_served(room):
    look = Answers()
    tasks = [asyncio.create_task(room.wait("m", look, 10)) for _ in range(2)]
    await settle()
    look.value = "worker"
    room.changed("m")
    tasks[0].cancel()
    left, served = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(left, asyncio.CancelledError)
    assert served == "worker"
    assert len(room) == 0


async def test_one_more_look_of_another_kind_is_the_guests_alone(room):
    first, other, second = Answers(), Answers(), Answers()
    second.value = "worker"
    waiting = [
        asyncio.create_task(room.wait("m", first, 5, Again(0.01, second))),
        asyncio.create_task(room.wait("m", other, 5)),
    ]
    assert await waiting[0] == "worker"
    assert (first.looks, other.looks, second.looks) == (1, 1, 1), "nobody else has looked"
    waiting[1].cancel()


async def test_one_more_look_that_finds_nothing_leaves_the_guest_where_he_is(room):
    look, second = Answers(), Answers()
    waiting = asyncio.create_task(room.wait("m", look, 5, Again(0, second)))
    await until(lambda: second.looks)
    look.value = "worker"
    room.changed("m")
    assert await waiting == "worker"


async def test_one_more_look_may_end_it(room):
    second = Answers()
    second.error = LookupError()
    with pytest.raises(LookupError):
        await room.wait("m", Answers(), 5, Again(0, second))
    assert len(room) == 0
