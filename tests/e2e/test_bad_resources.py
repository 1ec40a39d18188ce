"""``kubectl apply`` of what cannot work is refused by the API server, with a sentence; nothing comes of it."""

import pytest

from e2e.team import Team
from e2e.watchers import WORKERS

pytestmark = pytest.mark.e2e

WORKER = """
apiVersion: modelpool.dev/v1alpha1
kind: ModelWorker
metadata: {{name: {name}}}
spec:
  pool: pool
  memory: {memory}
  model: {{name: minilm, capability: {capability}, source: "{source}"}}
  {extra}
"""
GOOD = {"name": "w", "memory": "1Gi", "capability": "text-embedding", "source": "hf://org/whole", "extra": ""}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        pytest.param({"memory": "lots"}, "for example 8Gi", id="memory that is no amount"),
        pytest.param({"source": "ftp://host/model"}, "hf://", id="source of an unknown kind"),
        pytest.param({"capability": "telepathy"}, "text-embedding", id="unknown capability"),
        pytest.param(
            {"extra": "template: {env: [{name: PYTHONPATH, value: /x}]}"}, "PYTHONPATH", id="variable that loads code"
        ),
        pytest.param({"extra": "hostNetwork: true"}, "hostNetwork", id="field that is not there"),
        pytest.param({"name": "Not.A.Name"}, "name", id="name that no Service can have"),
    ],
)
def test_a_bad_worker_is_refused(team: Team, change: dict[str, str], sentence: str):
    manifest = WORKER.format(**GOOD | change)

    said = team.installation.refused(f"--namespace={team.namespace}", "apply", "-f", "-", stdin=manifest)

    assert sentence in said
    team.recorder.catch_up()
    assert team.recorder.versions(WORKERS) == []
