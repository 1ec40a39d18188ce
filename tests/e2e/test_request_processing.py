"""An idle worker serves, and refuses what is wrong without leaving its state."""

import math
import operator

import pytest

from e2e.team import LONG_TEXT, Team

pytestmark = pytest.mark.e2e

TEXTS = ("a cat sleeps on the sofa", "a kitten naps on the couch", "the stock market fell")


def test_request_processing(team: Team):
    """Idle → Processing → Ready, and the request is answered with vectors that mean something."""
    team.pool(idleTimeoutSeconds=3)
    team.worker("minilm")
    team.recorder.until_state("minilm", "Idle")
    mark = team.recorder.mark()

    refused = team.embed("minilm", "a text", model="another-model")
    assert refused.status_code == 404
    assert refused.json()["error"]["code"] == "model_not_found"
    answer = team.embed("minilm", *TEXTS, LONG_TEXT)

    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert [each["index"] for each in body["data"]] == [0, 1, 2, 3]
    cat, kitten, market, long = (each["embedding"] for each in body["data"])
    assert all(abs(math.hypot(*vector) - 1) < 1e-3 for vector in (cat, kitten, market, long))
    assert dot(cat, kitten) > 0.5 > dot(cat, market)
    assert body["usage"]["prompt_tokens"] > 256

    team.recorder.until_state("minilm", "Idle", after=mark)
    assert team.recorder.states("minilm") == [
        *("Spawning", "Loading", "Ready", "Idle"),
        *("Processing", "Ready", "Idle"),
    ]
    assert team.status("minilm")["pendingRequests"] == 0


def dot(one: list[float], two: list[float]) -> float:
    """The cosine of two vectors of length 1."""
    return sum(map(operator.mul, one, two))
