"""Cold start: from no process to the first answer of /readyz, beside a script that imports and loads the same model."""

import json
import os
import signal
import statistics
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from bench import ours
from bench.figures import Sample, Samples, Target
from bench.place import Place
from bench.table import Table
from cluster.host import ClusterError

BARE = Path(__file__).with_name("bare_start.py")
STARTS_A_ROUND = 3
SECONDS = 120.0
Start = Callable[[Place, Path], dict[str, float]]
TARGETS = (Target("cold_start.ratio_bare", "ours until /readyz is 200 / a bare script with AutoModel", most=1.0),)


def measure(place: Place, rounds: int, table: Table) -> tuple[dict[str, Any], dict[str, Any]]:
    """Start both in turns; return the figures by key, and the raw numbers. Raises `ClusterError` where it cannot."""
    model = place.embedding_model
    starts: Mapping[str, Start] = {"ours auto": _ours, "bare script": _bare}
    for start in starts.values():
        start(place, model)  # bytecode is written and the files come into the page cache
    samples: list[Sample] = []
    for number in range(rounds * STARTS_A_ROUND):
        for who in list(starts)[:: 1 if number % 2 else -1]:
            numbers = starts[who](place, model)
            samples.append(Sample(number, who, "start", numbers))
            table.row(number, who, _phases(numbers), {"total_s": numbers["total_s"]})
    return figures(Samples(samples)), {"samples": [asdict(each) for each in samples]}


def figures(samples: Samples) -> dict[str, Any]:
    """The ratio, and the median of every phase in seconds."""
    found: dict[str, Any] = {
        "cold_start.ratio_bare": samples.ratio("total_s", ("ours auto", "start"), ("bare script", "start"))
    }
    for key, who in (("ours", "ours auto"), ("bare", "bare script")):
        mine = [each.numbers for each in samples.all if each.who == who]
        names = list(mine[0]) if mine else []
        found[f"cold_start.{key}"] = {name: statistics.median(each[name] for each in mine) for name in names}
    return found


def phases(listening: float, loaded: float, ready: float, said: Mapping[str, float]) -> dict[str, float]:
    """The worker's phases in seconds from the times of its log lines and from what it says of itself.

    What its own phases leave of the time between two lines is counted as ``other``.
    """
    importing, fetching = said.get("import", 0.0), said.get("fetch", 0.0)
    load, warm_up = said.get("load", 0.0), said.get("warm_up", 0.0)
    return {
        "process": listening,
        "imports": importing,
        "fetch": fetching,
        "load": load,
        "warm_up": warm_up,
        "ready": ready - loaded,
        # fetching goes on beside the imports
        "other": max(0.0, loaded - listening - max(importing, fetching) - load - warm_up),
        "total_s": ready,
    }


def _phases(numbers: Mapping[str, float]) -> str:
    return " ".join(f"{name} {seconds:.2f}" for name, seconds in numbers.items() if name != "total_s")


def _ours(place: Place, model: Path) -> dict[str, float]:
    settings = ours.settings(place, capability="text-embedding", model=model, dtype="auto", port=0)
    port, listening, loaded = 0, 0.0, 0.0
    with _lines(place, ours.command(place), settings) as (lines, start):
        for line in lines:
            now = time.perf_counter() - start
            entry = json.loads(line) if line.startswith("{") else {}
            if entry.get("event") == "listening":
                port, listening = entry["inference"], now
            if entry.get("event") == "model loaded":
                loaded, said = now, entry["phases"]
            if entry.get("event") == "state" and entry.get("now") == "Ready":
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10):
                    return phases(listening, loaded, time.perf_counter() - start, said)
    raise ClusterError("the worker ended before it was ready; run it by hand to see why")


def _bare(place: Place, model: Path) -> dict[str, float]:
    with _lines(place, (str(place.python), str(BARE), str(model)), {}) as (lines, start):
        for line in lines:
            if line.startswith("{"):
                total = time.perf_counter() - start
                said: dict[str, float] = json.loads(line)
                return {"process": total - sum(said.values()), **said, "total_s": total}
    raise ClusterError("the bare script ended before the model was loaded; run bare_start.py by hand to see why")


@contextmanager
def _lines(place: Place, command: Sequence[str], environment: Mapping[str, str]) -> Iterator[tuple[IO[str], float]]:
    """The lines that a new process prints, and when it was started; it is ended after the block, or in two minutes."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**place.environment(), **environment},
        cwd=place.scratch,
        text=True,
    )
    alarm = threading.Timer(SECONDS, os.kill, (process.pid, signal.SIGKILL))
    alarm.start()
    try:
        if process.stdout is None:
            raise RuntimeError("started without a standard output")
        yield process.stdout, start
    finally:
        alarm.cancel()
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
