"""A worker comes up, serves, and rests."""

from itertools import pairwise

import pytest

from e2e.team import LONG_TEXT, Team
from e2e.watchers import WORKERS

pytestmark = pytest.mark.e2e


def test_cold_start_success(team: Team, record_property):
    """Spawning → Loading → Ready, a request: Processing → Ready, unused: Idle; each a version of its own."""
    team.pool(idleTimeoutSeconds=5)
    team.worker("minilm")
    team.kubectl("wait", "--for=condition=Ready", "modelworker/minilm", "--timeout=180s")

    answer = team.embed("minilm", *[LONG_TEXT] * 8)

    assert answer.status_code == 200, answer.text
    assert [len(each["embedding"]) for each in answer.json()["data"]] == [384] * 8
    team.recorder.until_state("minilm", "Idle")
    assert team.recorder.states("minilm") == ["Spawning", "Loading", "Ready", "Processing", "Ready", "Idle"]

    status = team.status("minilm")
    moves = [(each["from"], each["to"]) for each in status["transitions"]]
    states = team.recorder.states("minilm")
    assert moves == list(pairwise(states))
    assert status["endpoint"] == f"http://minilm.{team.namespace}:8080"
    assert status["nodeName"]
    assert status["device"] == "cpu"
    assert status["restarts"] == 0
    assert status["memoryMiB"]["declared"] == 2048
    assert team.recorder.reserved("pool") == [0, 2048]
    # an Event for each lifecycle move, none for load
    assert team.events("minilm", last="ModelLoaded/Ready") == [
        ("Normal", "Accepted"),
        ("Normal", "ContainerStarted"),
        ("Normal", "ModelLoaded"),
    ]
    record_property("cold start, seconds by phase", status["coldStartSeconds"])
    begin, ready = (team.recorder.until_state("minilm", state) for state in ("Spawning", "Ready"))
    record_property("apply to Ready, seconds", round(ready.at - begin.at, 1))
    assert ready.status["coldStartSeconds"]["total"] > 0
    assert all(version.status["observedGeneration"] == 1 for version in team.recorder.versions(WORKERS)[2:])
