"""``python -m bench.operator``: the operator at 100, 300 and 1,000 workers → ``build/bench/operator.json``.

A real API server, played nodes, stand-ins for the workers' processes; everything shares this machine's CPUs, so rates
are lower bounds. ``WORKERS`` names other numbers. It measures and does not judge: a missed target is said and ends with
0, a measurement that could not be made ends with 1.
"""

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.figures import Target
from bench.operator import life
from bench.place import CHECKOUT, machine
from bench.table import Table
from cluster.control_plane import ControlPlane
from cluster.host import ClusterError
from cluster.progress import elapsed_text

SIZES = (100, 300, 1000)
TARGETS = (
    Target("pods_per_s", "workers a second, from the first apply to the last pod", least=50),
    Target("api_writes_per_life_step", "writes for each step of a life, Events and Leases with them", most=4),
    Target("conflict_rate", "writes that were refused with 409, of all", most=0.01),
    Target("restart_to_settled_s", "seconds from the new operator's start until all is as declared", most=20),
    Target("rss_mb", "most resident memory, MiB", most=250),
    Target("cpu_growth", "CPU time for each worker / that of the smallest run", most=1.25),
)
SHOWN = ("pods_per_s", "ready_per_s", "created_to_pod_p99_s", "cpu_ms_per_worker", "restart_to_settled_s", "rss_mb")


def main() -> int:
    """Measure every size; return the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    table, started = Table(), time.monotonic()
    runs: dict[str, dict[str, Any]] = {}
    errors: dict[str, str] = {}
    on = machine()
    try:
        for size in sizes(os.environ.get("WORKERS", "")):
            table.title(f"{size} workers over {life.POOLS} pools")
            try:
                runs[str(size)] = found = one(size)
            except ClusterError as error:
                errors[str(size)] = str(error)
                print(f"error: {error}", file=sys.stderr)
                continue
            print("  " + "  ".join(f"{name} {found[name]}" for name in SHOWN), flush=True)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    figures = headline(runs)
    table.targets(TARGETS, figures)
    result = {
        **figures,
        "runs": runs,
        "targets": {
            each.key: {"wanted": each.wanted(), "met": each.key in figures and each.met(figures[each.key])}
            for each in TARGETS
        },
        "errors": errors,
        "seconds": round(time.monotonic() - started, 1),
        "machine": on,
    }
    folder = CHECKOUT / "build" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "operator.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"\nWritten to build/bench/operator.json after {elapsed_text(time.monotonic() - started)}")
    return 1 if errors else 0


def sizes(asked: str) -> list[int]:
    """The numbers of workers, from what the user wrote. Raises `ClusterError`."""
    words = asked.replace(",", " ").split()
    most = life.POOLS * 200
    if not all(word.isdecimal() and 1 <= int(word) <= most for word in words):
        raise ClusterError(f'WORKERS is not a list of numbers from 1 to {most}, such as WORKERS="100 300"')
    return [int(word) for word in words] or list(SIZES)


def headline(runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The figures of the largest run, and how the cost of a worker grew up to it."""
    if not runs:
        return {}
    by_size = sorted(runs.values(), key=lambda each: each["workers"])
    figures = {name: value for name, value in by_size[-1].items() if not isinstance(value, dict)}
    figures["cpu_growth"] = round(by_size[-1]["cpu_ms_per_worker"] / by_size[0]["cpu_ms_per_worker"], 2)
    return figures


def one(size: int) -> dict[str, Any]:
    """One run on a control plane of its own."""
    with tempfile.TemporaryDirectory(prefix="modelpool-bench-") as scratch:
        folder = Path(scratch)
        with ControlPlane(folder / "state", kwok=True) as cluster:
            try:
                return asyncio.run(life.measure(cluster, folder / "run", size))
            except ExceptionGroup as group:
                raise _first(group) from group


def _first(group: ExceptionGroup[Exception]) -> Exception:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error


if __name__ == "__main__":
    sys.exit(main())
