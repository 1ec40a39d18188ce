"""checkov and kube-score find nothing in the chart but what `accepted` gives a reason for, and all of that."""

import pytest

from control_plane.security import checkers
from control_plane.security.accepted import CHECKOV, KUBE_SCORE, OBJECTS, VALUES, expected
from control_plane.security.installed import PLAIN, rendered

pytestmark = pytest.mark.control_plane


@pytest.fixture(params=OBJECTS)
def manifest(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Name and text of one way to install."""
    if request.param == "plain":
        return "plain", PLAIN.read_text(encoding="utf-8")
    return request.param, rendered(VALUES[request.param])


def test_checkov_finds_only_what_is_accepted(manifest, tmp_path):
    name, text = manifest
    assert checkers.checkov(text, tmp_path) == expected(CHECKOV, name)


def test_kube_score_finds_only_what_is_accepted(manifest):
    name, text = manifest
    assert checkers.kube_score(text) == expected(KUBE_SCORE, name)


BAD = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: bad, namespace: default}
spec:
  selector: {matchLabels: {app: bad}}
  template:
    metadata: {labels: {app: bad}}
    spec:
      hostNetwork: true
      containers: [{name: bad, image: "bad:latest", securityContext: {privileged: true}}]
"""


def test_the_checkers_do_find_what_is_wrong(tmp_path):
    """Else an empty report would look like a clean one."""
    found = checkers.checkov(BAD, tmp_path)
    assert {("CKV_K8S_16", "Deployment/bad"), ("CKV_K8S_19", "Deployment/bad")} <= found
    assert ("container-security-context-privileged", "Deployment/bad") in checkers.kube_score(BAD)
