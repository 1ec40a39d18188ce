"""The operator as a process: started, killed, read."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from cluster.host import free_ports

HOME = "modelpool-system"
SHORT = {"SWEEP_SECONDS": "1", "MAINTENANCE_SECONDS": "0.3", "LEASE_SECONDS": "2"}


class OperatorProcess:
    """``modelpool-operator run`` with short periods, for some namespaces only."""

    def __init__(self, folder: Path, kubeconfig: Path, namespaces: list[str] | None = None, **settings: str) -> None:
        self.log = folder / "operator.log"
        self.metrics_port, probe = free_ports(2)
        ports = {"METRICS_PORT": str(self.metrics_port), "PROBE_PORT": str(probe)}
        given = {"NAMESPACE": HOME, **ports, **SHORT, **settings}
        if namespaces is not None:
            given["WATCH_NAMESPACES"] = json.dumps(namespaces)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "KUBECONFIG": str(kubeconfig),
            **{f"MODELPOOL_OPERATOR_{name}": value for name, value in given.items()},
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Self:
        program = Path(sys.executable).parent / "modelpool-operator"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([program, "run"], env=self.environment, stdout=log, stderr=log)
        return self

    def kill(self) -> None:
        """End it as a lost node would: no word, no clean-up. May be called from any thread."""
        if (process := self._process) is not None:
            process.kill()
            process.wait(30)

    def freeze(self) -> None:
        """Hold it where it is, as a machine that hangs does. May be called from any thread."""
        os.kill(self.pid, signal.SIGSTOP)

    def wake(self) -> None:
        """Let it go on as if no time had passed."""
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        if (process := self._process) is not None:
            process.terminate()
            process.wait(30)

    @property
    def pid(self) -> int:
        assert self._process is not None, "the operator was not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def records(self) -> list[dict[str, Any]]:
        """Its log, one record a line."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def assert_clean(self, but: str = "^$") -> None:
        """Nothing in the log that a developer would have to look at; ``but`` matches events that are meant to be."""
        text = self.log.read_text()
        assert "Traceback" not in text, text[text.index("Traceback") - 500 :][:4000]
        loud = [each for each in self.records() if each.get("level") in ("error", "critical")]
        errors = [each for each in loud if not re.search(but, each["event"])]
        assert not errors, errors
