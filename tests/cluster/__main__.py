"""``python3 -m cluster``: local Kubernetes clusters, from the command line."""

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from cluster.control_plane import ControlPlane
from cluster.host import ClusterError, require_root
from cluster.progress import step
from cluster.real import Cluster


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python3 -m cluster", description=__doc__)
    named = argparse.ArgumentParser(add_help=False)
    named.add_argument("--name", default="demo", help="which cluster; several run beside each other (default: demo)")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("up", parents=[named], help="bring the cluster up, or do nothing when it runs")
    verbs.add_parser("down", parents=[named], help="remove all of it")
    verbs.add_parser("status", parents=[named], help="say whether it runs (exit code 0: it does)")
    verbs.add_parser("kubeconfig", parents=[named], help="print the path of the administrator's kubeconfig")
    load = verbs.add_parser("load", parents=[named], help="make an image known to the node")
    load.add_argument("image", type=Path, help="OCI layout folder or image archive")
    load.add_argument("--ref", help="name of the image, where it carries none: localhost/modelpool/worker:dev")
    gpus = verbs.add_parser("gpus", parents=[named], help="let the node have so many GPUs")
    gpus.add_argument("count", type=int)
    execute = verbs.add_parser("exec", parents=[named], help="run a program inside the cluster's network")
    execute.add_argument("command", nargs="+", metavar="-- COMMAND", help="such as: -- kubectl get pods -A")
    verbs.add_parser("control-plane", help="an API server alone, on loopback, until Ctrl-C; needs no root")
    return top


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        if options.verb == "control-plane":
            return hold_control_plane()
        require_root("the local cluster")
        return act(Cluster(options.name), options)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def act(cluster: Cluster, options: argparse.Namespace) -> int:
    match options.verb:
        case "up":
            cluster.up()
        case "down":
            with step(f"Removing the cluster {cluster.name}"):
                cluster.down()
        case "status":
            running = cluster.running()
            absent = "has left something behind" if cluster.exists() else "does not exist"
            print(f"the cluster {cluster.name} {'is running' if running else absent}")
            return 0 if running else 3
        case "kubeconfig":
            print(cluster.kubeconfig)
        case "load":
            with step(f"Loading {options.image}"):
                loaded = cluster.load_image(options.image, options.ref)
            print(f"{loaded.ref} is loaded, {loaded.sent_bytes / 1e6:.1f} MB of it new")
        case "gpus":
            cluster.set_gpus(options.count)
        case "exec":
            return cluster.execute(options.command)
    return 0


def hold_control_plane() -> int:
    with tempfile.TemporaryDirectory(prefix="modelpool-") as folder, ControlPlane(Path(folder) / "state") as running:
        print(f"export KUBECONFIG={running.kubeconfig}", flush=True)
        print("running until Ctrl-C", file=sys.stderr)
        ends = {signal.SIGINT, signal.SIGTERM}
        signal.pthread_sigmask(signal.SIG_BLOCK, ends)
        signal.sigwait(ends)
    return 0


if __name__ == "__main__":
    sys.exit(main())
