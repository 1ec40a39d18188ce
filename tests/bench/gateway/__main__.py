"""``python -m bench.gateway``: the gateway beside other proxies and none → ``build/bench/gateway.json``.

Whoever is measured has one core; upstreams, load generators and a real API server share the other one. ``BENCH`` names
the subjects, all without it; ``ROUNDS`` how often each is measured. It measures and does not judge: a missed target is
said and ends with 0, a measurement that could not be made ends with 1.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from bench.figures import Samples
from bench.gateway import programs, upstream
from bench.gateway.contenders import Contender, contenders
from bench.gateway.measure import SUBJECTS, TARGETS, TITLES, Stage, figures, rounds
from bench.gateway.site import site
from bench.peer_environments import FOLDER, locked, pinned
from bench.place import Place, machine, place
from bench.servers import Server, started
from bench.table import Table
from bench.wrk import ensure_wrk
from cluster import debian
from cluster.host import ClusterError, free_ports
from cluster.progress import elapsed_text

ROUNDS = 3
BUSY = 0.5  # processes that want to run, before the first is started
FILES = 8192


def main() -> int:
    """Measure what was asked for; return the exit code."""
    # the servers are ended on the way out
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        subjects, count = asked(os.environ.get("BENCH", ""), os.environ.get("ROUNDS", ""))
        with place() as here:
            run(here, subjects, count)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def asked(subjects: str, count: str) -> tuple[list[str], int]:
    """The subjects and the number of rounds, from what the user wrote. Raises `ClusterError`."""
    names = subjects.replace(",", " ").split() or list(SUBJECTS)
    unknown = [name for name in names if name not in SUBJECTS]
    if unknown:
        raise ClusterError(f'there is no benchmark {" ".join(unknown)}; expected BENCH="{" ".join(SUBJECTS)}"')
    if count and not (count.isdecimal() and 1 <= int(count) <= 100):
        raise ClusterError("ROUNDS is not a number from 1 to 100, such as ROUNDS=3")
    return names, int(count or ROUNDS)


def run(here: Place, subjects: list[str], count: int) -> None:
    """Measure, print, write. Raises `ClusterError` where a measurement could not be made."""
    table, on, began = Table(titles=TITLES), machine(), time.monotonic()
    if on["load_average"][0] > BUSY:
        table.title(f"The machine is busy with something else (load {on['load_average'][0]:.1f}): expect noise.")
    core, rest = cores()
    os.sched_setaffinity(0, {rest})  # and so all that is started, but for those who are measured
    allow_files()
    ensure_wrk()
    stage = Stage(here, programs.ensure())
    loads = [load for name in subjects for load in SUBJECTS[name]]
    with ExitStack() as stack:
        upstreams = stack.enter_context(upstream.running(here, stage.programs))
        kubeconfig = stack.enter_context(site(here.scratch / "cluster", upstreams.workers()))
        all_of_them = contenders(here, upstreams, kubeconfig, core, free_ports(7))
        servers = [(each, server(stack, here, each)) for each in all_of_them]
        table.title(f"{', '.join(subjects).capitalize()} ({count} rounds)")
        samples = Samples(rounds(stage, servers, loads, count, table))
    found = figures(samples)
    table.targets(TARGETS, found)
    taken = time.monotonic() - began
    written = found | {
        "targets": {
            each.key: {
                "wanted": each.wanted(),
                "met": None if found[each.key] is None else each.met(found[each.key]),
            }
            for each in TARGETS
        },
        "rounds": count,
        "seconds": round(taken, 1),
        "machine": on | {"core_of_the_proxy": core, "core_of_all_else": rest},
        "versions": versions(here),
        "raw": [asdict(each) for each in samples.all],
    }
    here.results.mkdir(parents=True, exist_ok=True)
    target = here.results / "gateway.json"
    target.write_text(json.dumps(written, indent=1) + "\n")
    print(f"\nWritten to {target.relative_to(here.checkout)} after {elapsed_text(taken)}")


def cores() -> tuple[int, int]:
    """The core of whoever is measured, and that of everybody else. Raises `ClusterError` where there is only one."""
    found = sorted(os.sched_getaffinity(0))
    if len(found) != 2:
        raise ClusterError("the benchmark needs two CPUs: one for who is measured, one for who measures")
    return found[1], found[0]


def allow_files() -> None:
    """Let this process and all that it starts have enough connections. Raises `ClusterError` where it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < FILES:
        raise ClusterError(f"the benchmark needs {FILES} open files, and the limit is {hard}: ulimit -Hn")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, FILES), hard))


def server(stack: ExitStack, here: Place, contender: Contender) -> Server | None:
    """The contender's program, ready and parked; None where it is no program."""
    return stack.enter_context(started(here, contender.program)) if contender.program else None


def versions(here: Place) -> dict[str, Any]:
    """What was run."""
    ours, theirs = locked(here.checkout / "uv.lock"), pinned(FOLDER / "litellm.txt")
    shown = ("uvicorn", "uvloop", "httptools", "orjson")
    found: dict[str, Any] = {
        "python": sys.version.split()[0],
        "ours": {name: ours[name] for name in shown},
        "LiteLLM": {name: theirs[name] for name in ("litellm", "uvicorn", "uvloop", "httpx", "aiohttp")},
    }
    for name in ("nginx", "haproxy", "wrk"):
        said = subprocess.run([*debian.command(name), "-v"], capture_output=True, text=True, check=False)
        found[name] = (said.stdout + said.stderr).partition("\n")[0]
    return found


if __name__ == "__main__":
    sys.exit(main())
