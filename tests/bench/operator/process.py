"""The operator's process as it is measured: its counters, its memory and its time on the CPU."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

_WRITES = ("POST", "PUT", "PATCH", "DELETE")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Counters:
    """Sums since the process began; those of several processes may be added."""

    writes: int = 0
    reads: int = 0
    refused: int = 0
    reconciles: int = 0
    moves: int = 0
    repairs: int = 0
    by_answer: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: "Counters") -> "Counters":
        return Counters(
            self.writes + other.writes,
            self.reads + other.reads,
            self.refused + other.refused,
            self.reconciles + other.reconciles,
            self.moves + other.moves,
            self.repairs + other.repairs,
            self.by_answer + other.by_answer,
        )


def parse(text: str) -> Counters:
    """Read what the operator's metrics say; a write that answers 409 was refused because another was first."""
    found = Counters()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name, labels, value = sample.name, sample.labels, int(sample.value)
            if name == "modelpool_rest_client_requests_total":
                if labels["method"] in _WRITES:
                    found.writes += value
                    found.refused += value if labels["code"] == "409" else 0
                else:
                    found.reads += value
                found.by_answer[f"{labels['method']} {labels['code']}"] += value
            elif name == "modelpool_reconcile_total":
                found.reconciles += value
            elif name == "modelpool_worker_transitions_total":
                found.moves += value
            elif name == "modelpool_ledger_repairs_total":
                found.repairs += value
    return found


async def counters(port: int) -> Counters:
    """Ask the operator that serves its metrics at this port of loopback."""
    async with (
        aiohttp.ClientSession(trust_env=False) as session,
        session.get(f"http://127.0.0.1:{port}/metrics") as answer,
    ):
        return parse(await answer.text())


def cpu_seconds(pid: int) -> float:
    """The time that a process has been on a CPU."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def peak_mib(pid: int) -> float:
    """The most resident memory that a process has had, MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"/proc/{pid}/status says no VmHWM")
