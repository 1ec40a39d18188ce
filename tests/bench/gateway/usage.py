"""What a program with all its processes takes of the machine."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def peak_mib(leader: int) -> float:
    """The most resident memory that each process of that process group has had, summed up, MiB."""
    found = (re.search(r"^VmHWM:\s+(\d+) kB", text, re.MULTILINE) for text in _read(leader, "status"))
    return round(sum(int(peak[1]) for peak in found if peak) / 1024, 1)


def cpu_seconds(leader: int) -> float:
    """The time that the processes of that process group have been on a CPU."""
    # the name before the last bracket may hold spaces and brackets itself
    fields = (text.rpartition(")")[2].split() for text in _read(leader, "stat"))
    return sum(int(each[11]) + int(each[12]) for each in fields) / _TICKS


def _read(leader: int, file: str) -> Iterator[str]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(folder.name)) == leader:
                yield (folder / file).read_text()
        except (ProcessLookupError, FileNotFoundError):
            continue
