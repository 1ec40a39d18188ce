"""Servers under test: started, asked until they are ready, parked while another is measured, and ended."""

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.place import Place
from cluster.host import ClusterError
from cluster.progress import step

READY_SECONDS = 180.0
_ASK_EVERY = 0.1
_ANSWER_SECONDS = 120.0
_PATIENCE = 5.0
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Program:
    """A server: its command, and what is added to the clean environment that it gets."""

    name: str
    command: tuple[str, ...]
    port: int
    health: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


class Server:
    """A running server with all its processes; they share a process group of their own."""

    def __init__(self, program: Program, environment: Mapping[str, str], log: Path) -> None:
        self.program = program
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        # the kernel ends it with us, also when we are killed
        pact = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*pact, *program.command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**environment, **program.environment},
                cwd=log.parent,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process that was started; it leads the process group of all of them."""
        return self._process.pid

    def wait_ready(self) -> None:
        """Ask its health endpoint until it answers 200. Raises `ClusterError` with the end of its log."""
        deadline = time.monotonic() + READY_SECONDS
        while True:
            with suppress(OSError), _OPENER.open(self.program.url(self.program.health), timeout=5):
                return
            if self._process.poll() is not None:
                raise ClusterError(f"{self.program.name} ended before it was ready; {self._end_of_log()}")
            if time.monotonic() > deadline:
                raise ClusterError(f"{self.program.name} was not ready in {READY_SECONDS:g} s; {self._end_of_log()}")
            time.sleep(_ASK_EVERY)

    def post(self, path: str, body: object) -> Any:
        """One request and its JSON answer. Raises `ClusterError` where it is refused."""
        request = urllib.request.Request(
            self.program.url(path), json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with _OPENER.open(request, timeout=_ANSWER_SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as refused:
            with refused:
                said = refused.read(500).decode(errors="replace")
            raise ClusterError(f"{self.program.name} refused {path} with {refused.code}: {said}") from refused
        except OSError as broken:
            raise ClusterError(f"{self.program.name} did not answer {path}: {broken}; {self._end_of_log()}") from broken

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let a parked server run during the block."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.park()

    def park(self) -> None:
        """Stop all its processes where they are: another one has the CPUs for itself."""
        self._signal(signal.SIGSTOP)

    def end(self) -> None:
        """End all its processes."""
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _end_of_log(self) -> str:
        return f"the end of its log {self.log}:\n{self.log.read_text(errors='replace')[-1500:].strip()}"


@contextmanager
def started(place: Place, program: Program) -> Iterator[Server]:
    """A server that has been ready and is parked; ended after the block."""
    server = Server(program, place.environment(), place.scratch / "log" / f"{program.name}.log")
    try:
        with step(f"Starting {program.name}"):
            server.wait_ready()
        server.park()
        yield server
    finally:
        server.end()
