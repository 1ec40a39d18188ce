"""The load generator `wrk`: a closed loop of so many connections that post bodies in turn."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cluster import debian
from cluster.host import ClusterError, run

SCRIPT = Path(__file__).with_name("wrk.lua")
MARK = "MEASURED "
ANSWER_SECONDS = 60
PATIENT_SECONDS = 45.0


class NothingAnsweredError(ClusterError):
    """The server took longer for its first answer than the run lasted."""


@dataclass(frozen=True)
class Load:
    """What one run of wrk saw: whole answers a second, and their latency in milliseconds."""

    requests: int
    per_second: float
    p50_ms: float
    p90_ms: float
    p99_ms: float


def ensure_wrk() -> None:
    """Raises `ClusterError` where there is no wrk and it cannot be fetched."""
    debian.command("wrk")


def write_bodies(bodies: Iterable[object], target: Path) -> Path:
    """Write request bodies for wrk, one a line."""
    target.write_text("".join(json.dumps(body) + "\n" for body in bodies))
    return target


def post(url: str, bodies: Path, *, connections: int, seconds: float, rest_ms: int = 0) -> Load:
    """Load ``url`` for so many whole seconds; where nothing was answered in that time, for a patient while.

    A connection rests for up to ``rest_ms`` milliseconds, drawn evenly, before each request. Raises `ClusterError`
    where an answer was not a success, or none came.
    """
    try:
        return _post(url, bodies, connections, seconds, rest_ms)
    except NothingAnsweredError:
        return _post(url, bodies, connections, PATIENT_SECONDS, rest_ms)


def _post(url: str, bodies: Path, connections: int, seconds: float, rest_ms: int) -> Load:
    said = run(
        [
            *debian.command("wrk"),
            "--threads=1",
            f"--connections={connections}",
            f"--duration={max(1, round(seconds))}s",
            f"--timeout={ANSWER_SECONDS}s",
            "--script",
            SCRIPT,
            url,
            "--",
            bodies,
            str(rest_ms),
        ],
        timeout=seconds + 2 * ANSWER_SECONDS,
    )
    return parse(said, url)


def parse(said: str, url: str) -> Load:
    """Read what the script printed. Raises `ClusterError` where a request failed or none was answered."""
    line = next((line for line in said.splitlines() if line.startswith(MARK)), None)
    if line is None:
        raise ClusterError(f"wrk measured nothing at {url}; it said: {said[-500:]}")
    seen = json.loads(line.removeprefix(MARK))
    failed = {kind: seen[kind] for kind in ("connect", "read", "write", "status", "timeout") if seen[kind]}
    if failed:
        raise ClusterError(f"requests to {url} failed (wrk's kinds of errors): {failed}")
    if not seen["requests"]:
        raise NothingAnsweredError(f"{url} answered no request in the whole time of a run of wrk")
    return Load(
        requests=seen["requests"],
        per_second=seen["requests"] / (seen["microseconds"] / 1e6),
        p50_ms=seen["p50"] / 1e3,
        p90_ms=seen["p90"] / 1e3,
        p99_ms=seen["p99"] / 1e3,
    )
