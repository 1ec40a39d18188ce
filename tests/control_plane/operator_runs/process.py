"""The operator as a process: started, killed, read."""

import json
import os
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
        metrics, probe = free_ports(2)
        given = {"NAMESPACE": HOME, "METRICS_PORT": str(metrics), "PROBE_PORT": str(probe), **SHORT, **settings}
        if namespaces is not None:
            given["WATCH_NAMESPACES"] = json.dumps(namespaces)
        self._environment = {
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
            self._process = subprocess.Popen([program, "run"], env=self._environment, stdout=log, stderr=log)
        return self

    def kill(self) -> None:
        """End it as a lost node would: no word, no clean-up. May be called from any thread."""
        if (process := self._process) is not None:
            process.kill()
            process.wait(30)

    def stop(self) -> None:
        if (process := self._process) is not None:
            process.terminate()
            process.wait(30)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def records(self) -> list[dict[str, Any]]:
        """Its log, one record a line."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def assert_clean(self) -> None:
        """Nothing in the log that a developer would have to look at."""
        text = self.log.read_text()
        assert "Traceback" not in text, text[text.index("Traceback") - 500 :][:4000]
        errors = [each for each in self.records() if each.get("level") in ("error", "critical")]
        assert not errors, errors
