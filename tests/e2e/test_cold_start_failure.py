"""A model that cannot load: the worker fails at once, says why in its own words, and leaves nothing behind."""

import pytest

from e2e.team import Team

pytestmark = pytest.mark.e2e

WEIGHTS_BYTES = "90 868 376"
COLUMNS = ["NAME", "STATE", "MODEL", "CAPABILITY", "POOL", "MEMORY", "GPUS", "PENDING", "REASON", "AGE"]


def test_cold_start_failure(team: Team):
    """Spawning → Loading → Failed → Dead; the reservation is back at the baseline; no pod, process or entry is left."""
    team.pool(failedRetentionSeconds=8)
    team.worker("broken", "hf://org/truncated")
    team.recorder.until_state("broken", "Failed")

    row = team.kubectl("get", "mw", "broken").splitlines()
    assert row[0].split() == COLUMNS
    assert {"broken", "Failed", "text-embedding", "2Gi", "ModelLoadFailed"} <= set(row[1].split())
    described = team.kubectl("describe", "mw", "broken")
    for shown in ("Failed", "ModelLoadFailed", "78", "model.safetensors", "is cut short", "copy the model again"):
        assert shown in described

    team.recorder.until_state("broken", "Dead")
    assert team.recorder.states("broken") == ["Spawning", "Loading", "Failed", "Dead"]
    assert team.recorder.reserved("pool") == [0, 2048, 0]
    assert team.pool_status()["evicted"] == {"ModelLoadFailed": 1}
    status = team.status("broken")
    assert status["reason"] == "ModelLoadFailed"
    assert status["lastFailure"]["exitCode"] == 78
    assert status["lastFailure"]["container"] == "worker"
    assert "the header promises" in status["lastFailure"]["message"]
    assert WEIGHTS_BYTES in status["lastFailure"]["message"]
    assert {each["type"]: each["status"] for each in status["conditions"]}["Stalled"] == "True"
    assert team.events("broken", last="ModelLoadFailed/Dead") == [
        ("Normal", "Accepted"),
        ("Normal", "ContainerStarted"),
        ("Warning", "ModelLoadFailed"),
        ("Normal", "ModelLoadFailed"),
    ]
    team.assert_nothing_left_of("broken")


def test_the_hub_says_no(team: Team):
    """What a model hub refuses, or a model that no library knows, is what the user reads."""
    team.pool(memory="8Gi", failedRetentionSeconds=60)
    wanted = {
        "missing": "the name or revision is wrong",
        "forbidden": "gated or private",
        "unsupported": "names a model_type that this worker does not know",
    }
    for name in wanted:
        team.worker(name, f"hf://org/{name}", memory="1Gi")
    for name, sentence in wanted.items():
        failed = team.recorder.until_state(name, "Failed")
        assert failed.status["reason"] == "ModelLoadFailed"
        assert failed.status["lastFailure"]["exitCode"] == 78
        assert sentence in failed.status["lastFailure"]["message"], name
        assert sentence in failed.status["message"], name
