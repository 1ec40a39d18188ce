"""The operator may go at any moment: workers serve on, nothing is lost, nothing is doubled."""

import time

import pytest

from e2e.team import Team
from e2e.watchers import PODS, WORKERS

pytestmark = pytest.mark.e2e


def test_operator_restart(team: Team, record_property):
    """Killed while one worker serves, one loads and one waits, it finds all three as they are and goes on."""
    team.pool(memory="4Gi")
    team.worker("serving")
    team.recorder.until_state("serving", "Ready")
    team.worker("loading", "hf://org/paced-15s")
    team.recorder.until_state("loading", "Loading")
    team.worker("waiting")
    team.recorder.until(WORKERS, "waiting", lambda seen: seen.status.get("reason") == "WaitingForQuota", "waits")
    before = {worker: team.status(worker)["podUID"] for worker in ("serving", "loading")}
    entries = set(team.pool_status()["ledger"])

    old = team.installation.kill_operator()
    assert team.embed("serving", "nobody is at the helm").status_code == 200
    team.change("serving", shutdown=True)
    began = time.monotonic()
    team.installation.wait_for_operator(other_than=old)

    team.recorder.until_state("loading", "Ready")
    team.recorder.until_state("serving", "Dead")
    team.recorder.until_state("waiting", "Ready")
    restart_seconds = round(team.recorder.until_state("serving", "Evicting").at - began, 1)
    record_property("new operator to its first decision, seconds", restart_seconds)
    for worker, uid in before.items():
        assert team.status(worker)["podUID"] == uid, f"{worker} kept its pod"
        assert team.status(worker)["restarts"] == 0
    assert {worker: team.recorder.states(worker)[:3] for worker in ("serving", "loading", "waiting")} == {
        worker: ["Spawning", "Loading", "Ready"] for worker in ("serving", "loading", "waiting")
    }
    assert len({version.uid for version in team.recorder.versions(PODS)}) == 3
    assert entries == {team.worker_uid("serving"), team.worker_uid("loading")}
    assert set(team.pool_status()["ledger"]) == {team.worker_uid("loading"), team.worker_uid("waiting")}
    assert team.pool_status().get("ledgerRepairs", 0) == 0
    for worker in ("loading", "waiting"):
        assert team.events(worker, last="ModelLoaded/Ready").count(("Normal", "ModelLoaded")) == 1
    team.assert_invariants()
