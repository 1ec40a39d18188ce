"""``python3 -m bench``: measures the worker beside its peers and writes ``build/bench/worker.json``.

``BENCH`` names the subjects, all without it; ``ROUNDS`` how often each is measured. It measures and does not judge:
a missed target is said and ends with 0, a measurement that could not be made ends with 1.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from bench import cold_start, embedding, text
from bench.figures import nested
from bench.peer_environments import FOLDER, locked, pinned
from bench.place import Place, machine, place
from bench.table import Table
from cluster.host import ClusterError
from cluster.progress import elapsed_text

ROUNDS = 3
BUSY = 0.5  # processes that want to run, before the first is started
Measure = Callable[[Place, int, Table], tuple[dict[str, Any], dict[str, Any]]]
SUBJECTS: dict[str, Measure] = {
    "embedding": embedding.measure,
    "text": text.measure,
    "cold_start": cold_start.measure,
}
TARGETS = {
    "embedding": embedding.TARGETS,
    "text": text.TARGETS,
    "cold_start": cold_start.TARGETS,
}


def main() -> int:
    """Measure what was asked for; return the exit code."""
    # the servers are ended on the way out
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        names, rounds = asked(os.environ.get("BENCH", ""), os.environ.get("ROUNDS", ""))
        with place() as here:
            return run(here, names, rounds)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def asked(subjects: str, rounds: str) -> tuple[list[str], int]:
    """The subjects and the number of rounds, from what the user wrote. Raises `ClusterError`."""
    names = subjects.replace(",", " ").split() or list(SUBJECTS)
    unknown = [name for name in names if name not in SUBJECTS]
    if unknown:
        raise ClusterError(f'there is no benchmark {" ".join(unknown)}; expected BENCH="{" ".join(SUBJECTS)}"')
    if rounds and not (rounds.isdecimal() and 1 <= int(rounds) <= 100):
        raise ClusterError("ROUNDS is not a number from 1 to 100, such as ROUNDS=3")
    return names, int(rounds or ROUNDS)


def run(here: Place, names: list[str], rounds: int) -> int:
    """Measure, print, write; return 1 where a measurement could not be made."""
    table = Table()
    on = machine()
    if on["load_average"][0] > BUSY:
        table.title(f"The machine is busy with something else (load {on['load_average'][0]:.1f}): expect noise.")
    started = time.monotonic()
    figures: dict[str, Any] = {}
    raw: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for name in names:
        table.title(f"{name.replace('_', ' ').capitalize()} ({rounds} rounds)")
        try:
            found, raw[name] = SUBJECTS[name](here, rounds, table)
            figures |= found
        except ClusterError as error:
            errors[name] = str(error)
            print(f"error: {error}", file=sys.stderr)
    targets = [target for name in names for target in TARGETS[name]]
    table.targets(targets, figures)
    taken = time.monotonic() - started
    written = nested(figures) | {
        "targets": {
            target.key: {"wanted": target.wanted(), "met": figures.get(target.key) and target.met(figures[target.key])}
            for target in targets
        },
        "errors": errors,
        "rounds": rounds,
        "seconds": round(taken, 1),
        "machine": on,
        "versions": versions(here),
        "raw": raw,
    }
    here.results.mkdir(parents=True, exist_ok=True)
    target_file = here.results / "worker.json"
    target_file.write_text(json.dumps(written, indent=1) + "\n")
    print(f"\nWritten to {target_file.relative_to(here.checkout)} after {elapsed_text(taken)}")
    return 1 if errors else 0


def versions(here: Place) -> dict[str, dict[str, str]]:
    """What both sides ran."""
    shown = ("torch", "transformers", "tokenizers", "sentence-transformers", "infinity-emb", "litserve", "uvicorn")
    sets = {"ours": locked(here.checkout / "uv.lock")}
    sets |= {path.stem: pinned(path) for path in sorted(FOLDER.glob("*.txt"))}
    return {
        name: {"python": sys.version.split()[0]} | {each: known[each] for each in shown if each in known}
        for name, known in sets.items()
    }


if __name__ == "__main__":
    sys.exit(main())
