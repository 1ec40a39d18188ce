"""Keeps what is derived next to what it is derived from: the chart's CRDs and the plain manifest.

    python3 charts/render.py crds            copy crds/*.yaml into the chart
    python3 charts/render.py plain           render the chart into charts/plain/modelpool.yaml (needs helm)
    python3 charts/render.py crds --check    change nothing, exit 1 when a copy is stale; so for plain

Standard library only. ``--helm PATH`` names the helm to use; without it the one on PATH is taken.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

CHARTS = Path(__file__).resolve().parent
CRDS = CHARTS.parent / "crds"
CHART = CHARTS / "modelpool"
PLAIN = CHARTS / "plain" / "modelpool.yaml"
NAMESPACE = "modelpool-system"
#: The release whose API the manifest is written for; no cluster is asked.
KUBE_VERSION = "1.37.0"

HEAD = f"""\
# Modelpool without helm: kubectl apply --server-side -f modelpool.yaml
# Rendered from charts/modelpool by charts/render.py; change the chart, not this file.
---
apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels:
    app.kubernetes.io/name: modelpool
    pod-security.kubernetes.io/enforce: restricted
"""


def crds() -> Iterator[tuple[Path, str]]:
    """Yield every CRD of the chart: where it belongs and its text."""
    for source in sorted(CRDS.glob("*.yaml")):
        yield CHART / "files" / "crds" / source.name, source.read_text()


def plain(helm: str) -> Iterator[tuple[Path, str]]:
    """Yield the plain manifest: where it belongs and its text. Raises CalledProcessError when helm refuses."""
    command = [helm, "template", "modelpool", str(CHART), "--namespace", NAMESPACE, "--no-hooks"]
    command += ["--kube-version", KUBE_VERSION]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8")  # noqa: S603 - our own words
    # who made the objects decides who may change them: these are kubectl's
    lines = [line for line in done.stdout.splitlines() if "app.kubernetes.io/managed-by: Helm" not in line]
    lines = [line for line in lines if not line.lstrip().startswith(("helm.sh/chart:", "# Source:"))]
    yield PLAIN, HEAD + "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Write or check one kind of derived file; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["crds", "plain"])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is stale")
    parser.add_argument("--helm", default=shutil.which("helm"), help="path of helm; default: the one on PATH")
    options = parser.parse_args(arguments)
    if options.what == "plain" and not options.helm:
        parser.error("expected helm on PATH, or --helm PATH, for example --helm /usr/local/bin/helm")

    files = dict(crds() if options.what == "crds" else plain(options.helm))
    folder = CHART / "files" / "crds" if options.what == "crds" else PLAIN.parent
    left_over = set(folder.glob("*.yaml")) - set(files) - {PLAIN.parent / "kustomization.yaml"}
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    if options.check:
        for path in (*stale, *left_over):
            name = path.relative_to(CHARTS.parent)
            sys.stderr.write(f"{name} is stale: run python3 charts/render.py {options.what}\n")
        return 1 if stale or left_over else 0
    for path in left_over:
        path.unlink()
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[path], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
