"""Prints where a program is, building it where it is not: ``python3 -m cluster.tools helm``."""

import sys

from cluster import binaries
from cluster.host import ClusterError


def main(name: str) -> int:
    """Print the path of ``helm`` or of one of Kubernetes' programs."""
    try:
        print(binaries.ensure([name if name in binaries.PROGRAMS else "kube"]) / name)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
