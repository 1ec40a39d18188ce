"""The machine we run on: commands, Debian packages, root, free ports."""

import os
import random
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

#: Below Linux's ports for outgoing connections (32768 and up) and Kubernetes's node ports (30000 and up).
_PORTS = range(20_000, 30_000)
_given: set[int] = set()
_lock = threading.Lock()


class ClusterError(Exception):
    """What went wrong and what to do about it, in one sentence for the user."""


def cache_home() -> Path:
    """The user's cache folder of this project: ``$XDG_CACHE_HOME/modelpool`` or ``~/.cache/modelpool``."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(configured) if configured.startswith("/") else Path.home() / ".cache"
    return base / "modelpool"


def is_root() -> bool:
    return os.geteuid() == 0


def require_root(purpose: str) -> None:
    if not is_root():
        raise ClusterError(f"{purpose} needs root; run it as root, for example with sudo")


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    timeout: float | None = None,
) -> str:
    """Run a command to its end and return its standard output.

    ``env`` is added to the present environment. Raises `ClusterError` naming the command and the end
    of what it said when it exits non-zero, is not installed or takes longer than ``timeout`` seconds.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            env={**os.environ, **env} if env else None,
            cwd=cwd,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            text=True,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as missing:
        raise ClusterError(f"{words[0]} is not installed, it was needed for: {' '.join(words)[:200]}") from missing
    except subprocess.TimeoutExpired as slow:
        raise ClusterError(f"{' '.join(words)[:200]} did not end within {timeout:g} s") from slow
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-1500:]
        raise ClusterError(f"{' '.join(words)[:200]} failed with exit code {done.returncode}: {said}")
    return done.stdout


def missing_packages(packages: Iterable[str]) -> list[str]:
    """Those of the Debian packages that are not installed, in order; all of them where there is no dpkg."""
    names = list(packages)
    if shutil.which("dpkg-query") is None:
        return names
    listed = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *names],
        text=True,
        capture_output=True,
        check=False,  # it exits 1 for unknown names, which are the missing ones
    ).stdout
    installed = {line.split()[0] for line in listed.splitlines() if line.endswith(" installed")}
    return [name for name in names if name not in installed]


def ensure_packages(packages: Iterable[str], purpose: str) -> None:
    """Install the Debian packages that are missing, saying which.

    Raises `ClusterError` when something is missing and we are not root or this is not Debian.
    """
    missing = missing_packages(packages)
    if not missing:
        return
    if shutil.which("apt-get") is None or not is_root():
        raise ClusterError(
            f"{purpose} needs Debian packages that are missing; install them with: apt-get install {' '.join(missing)}"
        )
    print(f"Installing Debian packages for {purpose}: {' '.join(missing)}", flush=True)
    noninteractive = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-q"], env=noninteractive, timeout=600)
    run(["apt-get", "install", "-y", "-q", "--no-install-recommends", *missing], env=noninteractive, timeout=1800)


def free_ports(count: int) -> list[int]:
    """So many TCP ports that nobody listens on at this moment; each is given to one caller of this process only.

    Not of those that the kernel gives to outgoing connections: one of them would have it before a server gets to it.
    """
    found: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        if len(found) == count:
            return found
        with _lock, socket.socket() as tried, suppress(OSError):
            if port not in _given:
                tried.bind(("", port))  # on any address: some servers listen on all of them
                _given.add(port)
                found.append(port)
    raise ClusterError(f"expected {count} free TCP ports from {_PORTS[0]} to {_PORTS[-1]}, found {len(found)}")
