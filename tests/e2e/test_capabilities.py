"""Every capability, each with a model from another kind of source, from its birth to its end on the real cluster."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from kubernetes import client

from e2e.capabilities import CASES, Case, client_of
from e2e.hub import Hub
from e2e.installation import Environment, Installation
from e2e.machine import metric, until
from e2e.team import Team
from e2e.watchers import POOLS

pytestmark = pytest.mark.e2e

#: Shorter than the long requests take on a fast machine, with room.
IDLE, EVICT = 1, 2
#: What a worker declares, and what one with a loaded model takes at least: its libraries alone take more. MiB.
DECLARED, LEAST = 2048, 100


@pytest.fixture(scope="module")
def five(
    api: client.ApiClient, installation: Installation, environment: Environment
) -> Iterator[tuple[Team, dict[str, "Future[tuple[float, float]]"]]]:
    """Five workers side by side, each in a pool of its own; what became of each is in its future."""
    with Team(api, installation) as team, ThreadPoolExecutor(len(CASES)) as threads:
        for case in CASES:
            pool_of(team, case.capability, idleTimeoutSeconds=600, evictAfterSeconds=600)
            model = {"capability": case.capability, **case.model(team, environment)}
            team.worker(case.capability, pool=case.capability, model=model)
        yield team, {case.capability: threads.submit(live, team, case) for case in CASES}


def pool_of(team: Team, name: str, **spec: int) -> None:
    """Make a pool and wait until it says that nothing is reserved."""
    team.pool(name, **spec)
    team.recorder.until(POOLS, name, lambda seen: seen.status.get("reserved"), "says what is reserved")


def live(team: Team, case: Case) -> tuple[float, float]:
    """Ask a worker, make its times short while it is at work, and see it go.

    Returns when its times had become short, and when it had answered.
    """
    name = case.capability
    ready = team.recorder.until_state(name, "Ready", "Failed", "Dead", seconds=300)
    assert ready.status["state"] == "Ready", ready.status["message"]
    url = team.url(name)
    with client_of(url) as asking, ThreadPoolExecutor(1) as thread:
        case.ask(asking, url)
        long = thread.submit(case.ask_long, asking, url)
        address = team.address(name)
        until(lambda: long.done() or metric(address, "modelpool_worker_pending_requests"), "a long request is admitted")
        team.change(name, idleTimeoutSeconds=IDLE, evictAfterSeconds=EVICT)
        changed = time.monotonic()
        long.result()
        answered = time.monotonic()
    team.recorder.until_state(name, "Dead")
    return changed, answered


@pytest.mark.parametrize("capability", [case.capability for case in CASES])
def test_a_whole_life(five, capability, record_property):
    """From Spawning to Dead, right answers in between, and the memory reserved exactly as long as it is held."""
    team, lives = five
    changed, answered = lives[capability].result(timeout=400)

    states = team.recorder.states(capability)
    assert states[:3] == ["Spawning", "Loading", "Ready"]
    assert set(states[3:-4]) <= {"Ready", "Processing"}
    assert states[-5:] == ["Processing", "Ready", "Idle", "Evicting", "Dead"]
    evicting = team.recorder.until_state(capability, "Evicting")
    assert evicting.status["reason"] == "IdleEviction"
    assert evicting.at > answered + IDLE, "maintenance passes every second and leaves a worker that is at work"
    assert team.recorder.reserved(capability) == [0, DECLARED, 0]
    assert team.pool_status(capability)["evicted"] == {"IdleEviction": 1}
    team.assert_nothing_left_of(capability, capability)
    ready = team.recorder.until_state(capability, "Ready")
    assert ready.status["device"] == "cpu"
    # what the worker measured of itself: by the time it is idle that was written, with the model in it
    memory = team.recorder.until_state(capability, "Idle").status["memoryMiB"]
    assert memory["declared"] == DECLARED
    assert LEAST < memory["measured"] < DECLARED, memory
    record_property("memory with its model, MiB", memory["measured"])
    record_property("at work after its times were made short, seconds", round(answered - changed, 1))
    record_property("cold start, seconds by phase", ready.status["coldStartSeconds"])


def test_a_request_that_outlasts_the_idle_time_keeps_its_worker(five):
    """Maintenance passed several times over workers that should have gone by then, had they not been at work."""
    _, lives = five
    times = [life.result(timeout=400) for life in lives.values()]
    assert len([1 for changed, answered in times if answered - changed > EVICT]) >= 2, times


def test_what_is_mounted_or_baked_in_is_loaded_without_the_hub(five, hub: Hub):
    """Of the five only the one with an hf:// source asked it."""
    _, lives = five
    for life in lives.values():
        life.result(timeout=400)
    asked = {each.split("/")[4] for each in hub.served if "/api/models/" in each}
    assert "private-decoder" in asked
    assert not asked & {"vision_language", "image_encoder", "diffusion"}


FAILURES = {
    "text-to-text": ("cut-decoder", "is cut short"),
    "image-embedding": ("decoder", "image-embedding"),
    "vision": ("encoder", "vision"),
    "text-to-image": ("pickled-pipeline", "can run any code"),
}


def test_a_model_that_cannot_serve_its_capability_fails_once_and_gives_its_memory_back(team: Team):
    """Weights cut in half, models of another kind, pickles: exit code 78 and the worker's own sentence."""
    for capability, (repository, _) in FAILURES.items():
        pool_of(team, capability)
        model = {"capability": capability, "source": f"hf://org/{repository}"}
        team.worker(capability, pool=capability, model=model)
    for capability, (_, sentence) in FAILURES.items():
        dead = team.recorder.until_state(capability, "Dead", seconds=240)
        assert team.recorder.states(capability) == ["Spawning", "Loading", "Failed", "Dead"]
        assert dead.status["reason"] == "ModelLoadFailed"
        assert dead.status["lastFailure"]["exitCode"] == 78
        assert sentence in dead.status["lastFailure"]["message"], capability
        assert team.recorder.reserved(capability) == [0, DECLARED, 0]
        team.assert_nothing_left_of(capability, capability)
