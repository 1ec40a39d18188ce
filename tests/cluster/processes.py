"""Long-running processes of a cluster: started, recorded, found again after a killed run, ended."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.host import ClusterError

POLL_SECONDS = 0.02
# Not the caller's environment: a proxy in it would stand between the components.
CLEAN_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/"}


@dataclass(frozen=True)
class Identity:
    """A process for certain: ids are used again, an id with its start time (clock ticks since boot) is not."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> "Identity | None":
        """The live process of that id, or None; a zombie counts as gone once its last thread has ended."""
        try:
            identity, gone = cls._read(pid)
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if gone else identity

    @classmethod
    def of_child(cls, pid: int) -> "Identity":
        """Our own child, which is there until its exit code is collected, ended or not."""
        return cls._read(pid)[0]

    @classmethod
    def _read(cls, pid: int) -> "tuple[Identity, bool]":
        # The name before the last bracket may hold spaces and brackets itself.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return cls(pid, int(fields[19])), fields[0] in "ZX" and int(fields[17]) <= 1

    def alive(self) -> bool:
        return Identity.of(self.pid) == self

    def signal(self, number: int) -> None:
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def end(identities: Iterable[Identity], patience: float = 0.0) -> list[Identity]:
    """End processes: SIGTERM, then SIGKILL after ``patience`` seconds (at once when 0). Returns what is still alive."""
    living = [each for each in identities if each.alive()]
    if patience > 0:
        for each in living:
            each.signal(signal.SIGTERM)
        living = wait_gone(living, patience)
    for each in living:
        each.signal(signal.SIGKILL)
    return wait_gone(living, 10.0)


def wait_gone(identities: Iterable[Identity], seconds: float) -> list[Identity]:
    """Those still alive after at most so many seconds."""
    deadline = time.monotonic() + seconds
    living = [each for each in identities if each.alive()]
    while living and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        living = [each for each in living if each.alive()]
    return living


# All that this program has started and that may still run: it may outlive the group that started it.
_children: list[subprocess.Popen[bytes]] = []


def reap() -> None:
    """Collect the exit codes of our own children that have ended, else they stay as zombies."""
    _children[:] = [child for child in _children if child.poll() is None]


class ProcessGroup:
    """The processes of one cluster, recorded by name in ``folder/processes.json`` with their logs in ``folder/log``.

    ``prefix`` goes before every command, such as an nsenter. With ``die_with_parent`` the kernel ends
    them when the thread that started them ends, be it by SIGKILL: start them from the main thread.
    """

    def __init__(self, folder: Path, *, prefix: Sequence[str] = (), die_with_parent: bool = False) -> None:
        self.folder = folder
        self.prefix = tuple(prefix)
        self.die_with_parent = die_with_parent

    @property
    def record(self) -> Path:
        return self.folder / "processes.json"

    def log(self, name: str) -> Path:
        return self.folder / "log" / f"{name}.log"

    def recorded(self) -> dict[str, Identity]:
        """Name → process as recorded, alive or not; empty when nothing was ever started here."""
        try:
            return {name: Identity(**fields) for name, fields in json.loads(self.record.read_text()).items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError) as broken:
            raise ClusterError(f"{self.record} is not a record of processes: {broken}; remove it") from broken

    def start(self, name: str, command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> Identity:
        """Start a process in a session of its own, its output going to its log."""
        self.log(name).parent.mkdir(parents=True, exist_ok=True)
        # setpriv becomes the command: no process stands between us and it.
        pact = ["setpriv", "--pdeathsig", "KILL"] if self.die_with_parent else []
        with self.log(name).open("ab") as log:
            child = subprocess.Popen(
                [*self.prefix, *pact, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**CLEAN_ENVIRONMENT, **(env or {})},
                start_new_session=True,
            )
        identity = Identity.of_child(child.pid)
        _children.append(child)
        self._write({**self.recorded(), name: identity})
        return identity

    def died(self, name: str) -> ClusterError:
        """The error of a process that ended by itself, with the end of its log."""
        return ClusterError(f"{name} has ended by itself; the end of its log:\n{self.log_tail(name)}")

    def log_tail(self, name: str, characters: int = 2000) -> str:
        log = self.log(name)
        return log.read_text(errors="replace")[-characters:].strip() if log.exists() else "(no log)"

    def dead(self) -> list[str]:
        """The names of recorded processes that do not run."""
        reap()
        return [name for name, identity in self.recorded().items() if not identity.alive()]

    def stop(self, name: str, patience: float = 0.0) -> None:
        """End one process; it stays out of the record until it is started again."""
        recorded = self.recorded()
        identity = recorded.pop(name, None)
        if identity is not None and end([identity], patience):
            raise ClusterError(f"{name} (process {identity.pid}) cannot be killed; it hangs in the kernel")
        reap()
        self._write(recorded)

    def stop_all(self, order: Sequence[str] = (), patience: float = 0.0) -> None:
        """End all recorded processes: those in ``order`` one after the other, then the rest together."""
        for name in order:
            if name in self.recorded():
                self.stop(name, patience)
        stuck = end(self.recorded().values(), patience)
        if stuck:
            raise ClusterError(f"processes {[each.pid for each in stuck]} cannot be killed; they hang in the kernel")
        reap()
        self.record.unlink(missing_ok=True)

    def _write(self, processes: Mapping[str, Identity]) -> None:
        if not self.folder.is_dir():
            return
        draft = self.record.with_suffix(".new")
        draft.write_text(json.dumps({name: asdict(identity) for name, identity in processes.items()}, indent=1))
        draft.replace(self.record)
