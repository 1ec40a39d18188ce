"""Maintenance never takes a worker that loads or works, however short the idle time is."""

import time

import pytest

from e2e.hub import Hub
from e2e.team import Team

pytestmark = pytest.mark.e2e

#: Time enough to send the request: from then on only the request keeps the worker.
RESIDENCY = 8


def test_eviction_safety(team: Team, hub: Hub):
    """With an idle time of 0 a slow load becomes Ready, a slow request is answered, and then the worker goes."""
    team.pool(idleTimeoutSeconds=0, evictAfterSeconds=0, minResidencySeconds=RESIDENCY)
    team.worker("slow", "hf://org/paced-12s")

    loading = team.recorder.until_state("slow", "Loading")
    ready = team.recorder.until_state("slow", "Ready", "Evicting", "Failed", "Dead")
    assert ready.status["state"] == "Ready"
    assert ready.at - loading.at > 12, "maintenance passes every second: a dozen of them saw this load"
    assert "GET /org/paced-12s/resolve" in "\n".join(hub.served)

    request = team.begin_long_request("slow", seconds=RESIDENCY + 10)
    began = time.monotonic()
    request.assert_answered()
    answered = time.monotonic()

    team.recorder.until_state("slow", "Dead")
    evicting = team.recorder.until_state("slow", "Evicting")
    assert evicting.status["reason"] == "IdleEviction"
    assert evicting.at - ready.at > RESIDENCY
    assert answered - max(began, ready.at + RESIDENCY) > 3, "maintenance passes every second: some saw this request"
    states = team.recorder.states("slow")
    assert states[:3] == ["Spawning", "Loading", "Ready"]
    assert states[-2:] == ["Evicting", "Dead"]
    assert states[-3] in ("Ready", "Idle"), "a worker is evicted from Ready or Idle only"
    assert team.recorder.reserved("pool") == [0, 2048, 0]
