"""The README's state diagram, drawn from the transition table.

PYTHONPATH=tests python -m readme.diagram            print it
PYTHONPATH=tests python -m readme.diagram --write    put it into README.md
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from modelpool_api import FLIP_STATES, INITIAL_STATE, TERMINAL_STATES, TRANSITIONS, WorkerEvent, WorkerState

README = Path(__file__).resolve().parents[2] / "README.md"
BEGIN, END = "<!-- state diagram: generated -->", "<!-- end of state diagram -->"
GROUP = "Serving"

Table = Mapping[WorkerState, Mapping[WorkerEvent, WorkerState]]


def words(name: str) -> str:
    """``ContainerStarted`` → ``container started``."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", name).lower()


def mermaid(table: Table = TRANSITIONS) -> str:
    """Draw the table; what the serving states have in common is drawn once, from a box around them."""
    shared = set.intersection(*(set(table[state].items()) for state in FLIP_STATES))
    moves: dict[tuple[str, str], list[WorkerEvent]] = {}
    inside: dict[tuple[str, str], list[WorkerEvent]] = {}
    for state, events in table.items():
        for event, target in events.items():
            common = state in FLIP_STATES and (event, target) in shared
            edges = inside if state in FLIP_STATES and target in FLIP_STATES else moves
            labels = edges.setdefault((GROUP if common else str(state), str(target)), [])
            if event not in labels:
                labels.append(event)
    lines = ["stateDiagram-v2", f"    [*] --> {INITIAL_STATE}"]
    lines += [f"    state {GROUP} {{", *(f"    {line}" for line in _edges(inside)), "    }"]
    lines += [*_edges(moves), *(f"    {state} --> [*]" for state in sorted(TERMINAL_STATES))]
    return "\n".join(lines)


def _edges(edges: Mapping[tuple[str, str], list[WorkerEvent]]) -> list[str]:
    return [f"    {a} --> {b}: {', '.join(words(event) for event in events)}" for (a, b), events in edges.items()]


def section() -> str:
    """Return what stands in the README, markers included."""
    return f"{BEGIN}\n```mermaid\n{mermaid()}\n```\n{END}"


def written(readme: str) -> str:
    """Return the README's text with a fresh diagram. Raises ValueError where the markers are missing."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise ValueError(f"expected one {BEGIN!r} and one {END!r} in the README")
    before, _, rest = readme.partition(BEGIN)
    return before + section() + rest.partition(END)[2]


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(mermaid())
