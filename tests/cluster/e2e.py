"""Runs pytest inside a real cluster's network: ``python3 -m cluster.e2e [pytest arguments]``.

Without arguments it runs every test there is, so that one closing line counts them all. ``KEEP=1`` leaves the
cluster running for the next time.
"""

import os
import sys

from cluster import binaries, environments, images, preflight, tiny_models
from cluster.host import ClusterError
from cluster.progress import step
from cluster.real import Cluster

CLUSTER = "test"
EVERYTHING = ("tests/unit", "tests/control_plane", "tests/e2e")
OTHER_WAY = "What runs without it: make test-unit test-control-plane."
#: what the tests of the control plane use; built before, for nothing can be downloaded inside the cluster's network
PROGRAMS = (*binaries.REAL_CLUSTER, "kwok", "kube-score")


def run(arguments: list[str]) -> int:
    """Bring the cluster up, load the images, run pytest there; returns its exit code."""
    python = images.CHECKOUT / ".venv" / "bin" / "python"
    if not python.exists():
        raise ClusterError(f"{python} is not there; make the environment first with: make setup")
    cluster = Cluster(CLUSTER)
    bin_dir = binaries.ensure(PROGRAMS)
    environments.checkov(python)
    built = images.build()
    tiny = tiny_models.build(built[images.WORKER], images.key(images.WORKER))
    cluster.up()
    with step("Loading the images into the cluster"):
        for image in (*built.values(), tiny.image, tiny.worker):
            cluster.load_image(image.oci_dir)
    os.environ |= {
        "MODELPOOL_E2E_OPERATOR_IMAGE": built[images.OPERATOR].ref,
        "MODELPOOL_E2E_WORKER_IMAGE": built[images.WORKER].ref,
        "MODELPOOL_E2E_MODEL_IMAGE": built[images.MODEL].ref,
        "HELM": str(bin_dir / "helm"),
        "KUBECTL": str(bin_dir / "kubectl"),
        **tiny_models.environment(tiny),
    }
    os.chdir(images.CHECKOUT)
    return cluster.execute([str(python), "-m", "pytest", *arguments])


def main(arguments: list[str]) -> int:
    preflight.require("The tests of the real cluster", OTHER_WAY, CLUSTER)
    try:
        return run(arguments or [*EVERYTHING])
    except ClusterError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        if os.environ.get("KEEP") != "1":
            Cluster(CLUSTER).down()  # says nothing: pytest's closing line stays the last


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
