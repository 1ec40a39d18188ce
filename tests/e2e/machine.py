"""The machine under the cluster, as far as the tests look at it: processes, and waiting for what no watch tells."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def processes_with(variable: str, value: str) -> list[int]:
    """Processes that carry this in their environment; those of pods are processes of this machine."""
    wanted = f"{variable}={value}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended while we looked
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def until(condition: Callable[[], T], what: str, seconds: float = 60) -> T:
    """What the condition returns once that is true."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"expected within {seconds:.0f} s: {what}")
        time.sleep(0.1)
    return value
