"""What a hub was asked for once stays on a volume: for the next container, and for the next worker."""

import os
import signal
from pathlib import Path

import pytest

from e2e.hub import Hub
from e2e.repositories import TOKEN, standard
from e2e.team import Team, processes_of
from e2e.watchers import WORKERS

pytestmark = pytest.mark.e2e


def test_a_download_is_kept_for_the_next_container_and_the_next_worker(team: Team, hub: Hub, tmp_path: Path):
    """A private, pinned model on a cache volume is fetched once; after that the hub is not asked at all."""
    team.pool(restartLimit=3)
    team.secret("hub-token", HF_TOKEN=TOKEN)
    cache = tmp_path / "cache"
    cache.mkdir()
    team.claim("cache", cache)
    commit = standard("private").commit
    source = f"hf://org/private@{commit}"
    model = {"tokenSecretRef": {"name": "hub-token"}, "cacheClaim": "cache"}

    team.worker("first", source, model=model)
    team.recorder.until_state("first", "Ready")
    assert (cache / "hub" / "models--org--private" / "snapshots" / commit / "model.safetensors").is_file()
    asked = len(hub.served)
    assert hub.tokens == {TOKEN}

    mark = team.recorder.mark()
    for process in processes_of(team.worker_uid("first")):
        os.kill(process, signal.SIGKILL)
    team.recorder.until_state("first", "Loading", after=mark)
    again = team.recorder.until_state("first", "Ready", after=team.recorder.mark())
    assert again.status["restarts"] == 1

    team.worker("second", source, model=model)
    team.recorder.until_state("second", "Ready")
    assert team.embed("second", "a text").status_code == 200
    assert [each for each in hub.served[asked:] if "private" in each] == []


def test_a_private_model_without_its_token_says_so(team: Team):
    team.pool(failedRetentionSeconds=60)
    team.worker("private", "hf://org/private")
    failed = team.recorder.until_state("private", "Failed")
    assert failed.status["lastFailure"]["exitCode"] == 78
    assert "needs tokenSecretRef" in failed.status["lastFailure"]["message"]


def test_a_claim_that_is_not_there_is_named(team: Team):
    """The worker waits for it as Spawning and says for what."""
    team.pool()
    team.worker("lost", "pvc://nowhere/model")
    waiting = team.recorder.until(
        WORKERS, "lost", lambda seen: "nowhere" in seen.status.get("message", ""), "names the claim"
    )
    assert waiting.status["state"] == "Spawning"
