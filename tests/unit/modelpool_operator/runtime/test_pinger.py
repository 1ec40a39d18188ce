"""What a ping's outcome is worth."""

import asyncio
from dataclasses import replace
from typing import Any, cast

import pytest

from modelpool_api import HealthCheck, HealthStatus, WorkerState
from modelpool_api.health import HealthRecord, PingOutcome
from modelpool_operator.runtime.knowledge import Knowledge
from modelpool_operator.runtime.pinger import Pingers, Target
from modelpool_operator.worker_client import PingResult

CHECK = HealthCheck()
UNREACHABLE = PingResult(PingOutcome.UNREACHABLE)


def worker(number: int) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "team-a", "name": f"w{number}", "uid": f"uid-{number}", "resourceVersion": "1"},
        "spec": {
            "pool": "default",
            "memory": "1Gi",
            "model": {"name": "m", "capability": "text-embedding", "source": "hf://org/m"},
        },
        "status": {"state": str(WorkerState.READY)},
    }


def pod(number: int) -> dict[str, Any]:
    owner = {"controller": True, "uid": f"uid-{number}"}
    meta = {
        "namespace": "team-a",
        "name": f"w{number}-uid-{number}"[:8],
        "uid": f"pod-{number}",
        "resourceVersion": "1",
    }
    return {
        "metadata": meta | {"ownerReferences": [owner]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }


@pytest.fixture
def knowledge() -> Knowledge:
    known = Knowledge()
    for number in range(6):
        known.workers.observe(worker(number))
        known.pods.observe(pod(number))
        assert known.pod_of(cast(Any, known.workers.get(("team-a", f"w{number}")))) is not None
    return known


def pingers(knowledge: Knowledge) -> Pingers:
    return Pingers(knowledge, cast(Any, None), cast(Any, None), lambda _key: None)


def target(number: int) -> Target:
    return Target(("team-a", f"w{number}"), f"uid-{number}", ("team-a", "default"), "127.0.0.1", CHECK, 300.0)


def test_misses_while_we_are_cut_off_are_not_held_against_anybody_afterwards(knowledge):
    """The connection comes back node by node: those that are last must not die for it."""
    asking = pingers(knowledge)
    for _ in range(20):
        for number in range(6):
            asking._take(target(number), UNREACHABLE)
    for number in range(4):  # these answer again, so that we do not look cut off any more
        knowledge.health[f"uid-{number}"] = HealthRecord().after(PingOutcome.OK)

    assert not knowledge.cut_off()
    for number in (4, 5):
        record = knowledge.health[f"uid-{number}"]
        assert record.status(CHECK, pod_ready=True) is HealthStatus.SUSPECT


def test_one_that_alone_does_not_answer_is_condemned_after_three_times_the_threshold(knowledge):
    asking = pingers(knowledge)
    for number in range(1, 6):
        knowledge.health[f"uid-{number}"] = HealthRecord().after(PingOutcome.OK)

    verdicts = []
    for _ in range(9):
        asking._take(target(0), UNREACHABLE)
        verdicts.append(knowledge.health["uid-0"].status(CHECK, pod_ready=True))

    assert verdicts[:8] == [HealthStatus.SUSPECT] * 8
    assert verdicts[8] is HealthStatus.UNHEALTHY


class Silent:
    """A worker client whom nobody answers."""

    async def ping(self, *_: object, **__: object) -> PingResult:
        return UNREACHABLE


class OneToken:
    async def candidates(self, _pool: object, *, refused: bool = False) -> list[str]:
        return [] if refused else ["token"]


@pytest.mark.parametrize(("starting", "pause"), [(1, 0.5), (50, 0.5), (200, 2.0)])
async def test_however_many_workers_start_at_once_they_are_asked_a_hundred_times_a_second_at_most(
    knowledge, starting, pause
):
    pauses: list[float] = []
    all_asked = asyncio.Event()

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == starting:
            all_asked.set()
        await asyncio.sleep(3600)

    asking = Pingers(knowledge, cast(Any, Silent()), cast(Any, OneToken()), lambda _key: None, sleep, lambda: 0.0)
    for number in range(starting):
        asking.watch(replace(target(100 + number), loading=True))
    await asyncio.wait_for(all_asked.wait(), 20)
    await asking.close()
    assert pauses == [pause] * starting
