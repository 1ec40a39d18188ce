"""Events are written beside the work: in order for each object, and never at the cost of anything else."""

import asyncio
from datetime import UTC, datetime
from typing import Any, cast

from modelpool_operator.domain.errors import BusyError
from modelpool_operator.kube.events import EventRecorder

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Gate:
    """Takes what is created once the gate is open; what is called "refused" it refuses."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.taken: list[str] = []

    async def create(self, _path: str, body: dict[str, Any]) -> None:
        await self.open.wait()
        if body["reason"] == "refused":
            raise BusyError("not now", 429)
        self.taken.append(body["reason"])


def record(recorder: EventRecorder, reason: str, uid: str = "u") -> None:
    recorder.record("ModelWorker", ("team-a", "w"), uid, reason=reason, action="a", note="n", warning=False, now=NOW)


async def test_events_of_one_object_are_written_in_their_order_and_a_refused_one_is_counted():
    api = Gate()
    api.open.set()
    recorder = EventRecorder(cast(Any, api), "operator")
    for reason in ("first", "refused", "second", "third"):
        record(recorder, reason)
    writing = asyncio.create_task(recorder.run())
    while len(api.taken) + recorder.lost < 4:  # noqa: ASYNC110 - the loop turns until all are written
        await asyncio.sleep(0)
    writing.cancel()
    assert api.taken == ["first", "second", "third"]
    assert recorder.lost == 1


async def test_while_the_api_server_is_slow_recording_goes_on_and_what_is_too_much_is_dropped():
    recorder = EventRecorder(cast(Any, Gate()), "operator")
    for _ in range(1500):
        record(recorder, "moved")
    assert recorder.lost == 500


async def test_what_waits_at_the_end_is_still_written():
    api = Gate()
    api.open.set()
    recorder = EventRecorder(cast(Any, api), "operator")
    for uid in ("a", "b", "c"):
        record(recorder, "last", uid)
    await recorder.flush()
    assert api.taken == ["last"] * 3
