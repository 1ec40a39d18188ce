"""The machine under the cluster, as the tests see it: processes, metrics, and waiting for what no watch tells."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import httpx
from prometheus_client.parser import text_string_to_metric_families

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


def metric(address: str, name: str, **labels: str) -> float:
    """The value of a metric that a program of ours shows on port 8080."""
    text = httpx.get(f"http://{address}:8080/metrics", trust_env=False).raise_for_status().text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    raise AssertionError(f"expected {address} to show {name} {labels}; it shows:\n{text}")
