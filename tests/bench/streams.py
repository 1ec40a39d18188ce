"""The load generator for streamed texts: wrk cannot see when the first text of an answer comes, ``go/main.go`` does."""

import json
import statistics
from pathlib import Path
from typing import Any

from cluster.binaries import find_go
from cluster.cache import cached, hash_of
from cluster.host import ClusterError, run
from cluster.progress import step

SOURCES = Path(__file__).with_name("go")
_SECONDS = 570.0


def ensure_client() -> Path:
    """The built client. Raises `ClusterError` where it cannot be built."""

    def build(folder: Path) -> None:
        with step("Building the streaming client from source"):
            flags = {"CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "-buildvcs=false -mod=readonly"}
            run([find_go(), "build", "-trimpath", "-o", folder / "streamload", "."], cwd=SOURCES, env=flags)

    return cached("bench-streamload", hash_of(files=SOURCES.iterdir()), build) / "streamload"


def stream(client: Path, url: str, bodies: Path, *, connections: int, tokens: int) -> dict[str, float]:
    """Post all bodies over so many connections; each answer must have ``tokens`` new tokens.

    Raises `ClusterError` where an answer fails.
    """
    return summary(json.loads(run([client, url, str(connections), bodies], timeout=_SECONDS)), tokens)


def summary(seen: Any, tokens: int) -> dict[str, float]:
    """Tokens a second over all, and the median time to the first text and to the end, ms.

    Raises `ClusterError` where an answer has another number of tokens: it would be compared with longer ones.
    """
    made = {each["tokens"] for each in seen["answers"]}
    if made != {tokens}:
        raise ClusterError(f"answers have {sorted(made)} tokens, expected {tokens} in each")
    return {
        "tokens_per_second": tokens * len(seen["answers"]) / seen["seconds"],
        "first_p50_ms": statistics.median(each["first_ms"] for each in seen["answers"]),
        "first_worst_ms": max(each["first_ms"] for each in seen["answers"]),
        "whole_p50_ms": statistics.median(each["total_ms"] for each in seen["answers"]),
    }
