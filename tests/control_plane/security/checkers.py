"""checkov and kube-score: what they find wrong in manifests, as pairs of check and object."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from cluster import binaries, environments
from cluster.binaries import KUBERNETES

#: kube-score's grade of a check that is passed.
PASSED = 10

Finding = tuple[str, str]


def checkov(manifests: str, folder: Path) -> set[Finding]:
    """Check id and ``Kind/name`` of each failed check. Cross-references count, so one call is one installation."""
    source = folder / "manifests"
    source.mkdir()
    (source / "all.yaml").write_text(manifests)
    command = [
        environments.checkov(Path(sys.executable)),
        "--directory",
        source,
        "--framework",
        "kubernetes",
        "--output",
        "json",
        "--compact",
    ]
    # no policies from the network: those of the pinned release
    options = ["--quiet", "--skip-download", "--soft-fail"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    done = subprocess.run([*command, *options], env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["summary"]["passed"] > 0
    assert report["summary"]["parsing_errors"] == 0
    return {(each["check_id"], _checkov_name(each["resource"])) for each in report["results"]["failed_checks"]}


def _checkov_name(resource: str) -> str:
    """``Kind.namespace.name``, with labels behind it where a pod template is meant."""
    kind, _, name = resource.split(".")[:3]
    return f"{kind}/{name}"


def kube_score(manifests: str) -> set[Finding]:
    """Check id and ``Kind/name`` of each check that is not passed in full, warnings included."""
    program = binaries.ensure(["kube-score"]) / "kube-score"
    version = "v" + ".".join(KUBERNETES.split(".")[:2])
    command = [program, "score", "--kubernetes-version", version, "--output-format", "json", "-"]
    done = subprocess.run(command, input=manifests, text=True, capture_output=True, check=False)
    assert done.stdout, done.stderr
    scored: list[dict[str, Any]] = json.loads(done.stdout)
    assert scored
    return {
        (check["check"]["id"], f"{each['type_meta']['kind']}/{each['object_meta']['name']}")
        for each in scored
        for check in each["checks"]
        if check["grade"] < PASSED and not check["skipped"]
    }
