"""A container that keeps dying gives its room back, once, to whoever waits for it."""

import pytest

from e2e.team import Team
from e2e.watchers import WORKERS

pytestmark = pytest.mark.e2e


def test_crash_loop(team: Team):
    """Failed with reason, exit code and the worker's own sentence; another worker that waited for the room runs."""
    team.pool(memory="3Gi", restartLimit=1)
    team.worker("dying", "hf://org/failing")
    team.recorder.until_state("dying", "Loading")
    team.worker("waiting")
    short = team.recorder.until(
        WORKERS, "waiting", lambda seen: "short" in seen.status.get("message", ""), "says that it waits for room"
    )
    assert short.status["state"] == "Spawning"
    assert short.status["reason"] == "WaitingForQuota"
    quota = next(each for each in short.status["conditions"] if each["type"] == "QuotaReserved")
    assert quota["status"] == "False"
    assert "1024 MiB short" in quota["message"]

    failed = team.recorder.until_state("dying", "Failed")
    assert failed.status["reason"] == "CrashLoopBackOff"
    assert failed.status["restarts"] == 2
    failure = failed.status["lastFailure"]
    assert failure["exitCode"] == 1
    assert failure["container"] == "worker"
    assert "the hub could not be reached for hf://org/failing" in failure["message"]
    assert "HTTP 500" in failure["message"]

    team.recorder.until_state("waiting", "Ready")
    team.recorder.until_state("dying", "Dead")
    assert team.embed("waiting", "here at last").status_code == 200
    holders = [each for each in team.recorder.holders("pool") if each]
    assert holders == [["dying"], ["waiting"]], "released once, then reserved once"
    assert team.pool_status()["evicted"] == {"CrashLoopBackOff": 1}
    assert set(team.pool_status()["ledger"]) == {team.worker_uid("waiting")}
    assert ("Warning", "CrashLoopBackOff") in team.events("dying", last="CrashLoopBackOff/Failed")
    team.assert_nothing_left_of("dying")


def test_too_little_memory(team: Team):
    """A worker that needs more memory than its limit is told so, and what to do."""
    team.pool(restartLimit=0)
    team.worker("small", memory="96Mi")

    failed = team.recorder.until_state("small", "Failed")

    assert failed.status["reason"] == "OOMKilled"
    assert failed.status["lastFailure"]["exitCode"] == 137
    assert "give the worker more memory" in failed.status["message"]
