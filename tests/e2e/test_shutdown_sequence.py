"""A worker that is told to stop finishes what it has and takes nothing new."""

import pytest

from e2e.team import Team, ask
from e2e.watchers import PODS, POOLS

pytestmark = pytest.mark.e2e


def test_shutdown_sequence(team: Team, record_property):
    """Shutdown while processing: the request in flight is answered, Evicting → Dead, the memory is released."""
    team.pool()
    team.worker("minilm")
    team.recorder.until_state("minilm", "Ready")
    request = team.begin_long_request("minilm", seconds=8)
    address = team.address("minilm")

    team.change("minilm", shutdown=True)
    team.recorder.until_state("minilm", "Evicting")
    assert not request.answer.done(), "expected the request to be in flight still"
    late = ask(f"http://{address}:8080", "one more")
    assert late.status_code == 503
    assert late.headers["X-Modelpool-State"] == "Evicting"
    assert int(late.headers["Retry-After"]) > 0

    request.assert_answered()
    dead = team.recorder.until_state("minilm", "Dead")
    assert dead.status["reason"] == "Shutdown"
    assert team.recorder.states("minilm")[-3:] == ["Processing", "Evicting", "Dead"]
    assert team.recorder.reserved("pool") == [0, 2048, 0]
    assert team.pool_status()["evicted"] == {"Shutdown": 1}
    ends = [
        each["state"]["terminated"]["exitCode"]
        for version in team.recorder.versions(PODS)
        for each in version.status.get("containerStatuses") or ()
        if "terminated" in each["state"]
    ]
    assert set(ends) == {0}, "the process ends with 0 after it agreed to go"
    team.assert_nothing_left_of("minilm")

    gone = team.recorder.until_gone(PODS, team.pod_name("minilm"))
    empty = next(each for each in team.recorder.versions(POOLS) if each.number > gone.number)
    record_property("pod gone to ledger released, seconds", round(empty.at - gone.at, 3))
