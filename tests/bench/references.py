"""The other end of ``direct.py``: a process that calls the libraries, one order at a time, idle in between."""

import json
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.place import Place
from cluster.host import ClusterError
from cluster.progress import step

SCRIPT = Path(__file__).with_name("direct.py")
_SECONDS = 300.0


class Reference:
    """One model in a process of its own."""

    def __init__(
        self, python: Path, kind: str, folder: Path, dtype: str, environment: Mapping[str, str], log: Path
    ) -> None:
        self.name = f"direct {dtype}"
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [python, SCRIPT, kind, folder, dtype],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env=dict(environment),
                text=True,
            )

    def wait_ready(self) -> None:
        self._answer()

    def ask(self, do: str, **what: object) -> Any:
        """Have one thing done. Raises `ClusterError` where the process ends instead, or takes over five minutes."""
        if self._process.stdin is None:
            raise RuntimeError("started without a standard input")
        try:
            self._process.stdin.write(json.dumps({"do": do, **what}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        return self._answer()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _answer(self) -> Any:
        if self._process.stdout is None:
            raise RuntimeError("started without a standard output")
        alarm = threading.Timer(_SECONDS, self._process.kill)
        alarm.start()
        try:
            line = self._process.stdout.readline()
        finally:
            alarm.cancel()
        if not line:
            raise self._ended()
        return json.loads(line)

    def _ended(self) -> ClusterError:
        said = self.log.read_text(errors="replace")[-1500:].strip()
        return ClusterError(f"{self.name} ended or took over {_SECONDS:g} s; the end of its log:\n{said}")


@contextmanager
def started_reference(place: Place, kind: str, model: Path, dtype: str) -> Iterator[Reference]:
    """A process that has loaded the model; ended after the block. ``kind``: sentences or decoder."""
    log = place.scratch / "log" / f"direct {dtype}.log"
    reference = Reference(place.python, kind, model, dtype, place.environment(), log)
    try:
        with step(f"Loading the model for direct calls in {dtype}"):
            reference.wait_ready()
        yield reference
    finally:
        reference.end()
