"""What is built for the benchmark from ``go/``: the upstream that streams, and the client that counts frames."""

import json
from pathlib import Path
from typing import Any

from cluster.binaries import find_go
from cluster.cache import cached, hash_of
from cluster.host import ClusterError, run
from cluster.progress import step

SOURCES = Path(__file__).with_name("go")
PATH = "/v1/chat/completions"
_SECONDS = 300.0


def ensure() -> Path:
    """The folder of the built programs ``upstream`` and ``streams``. Raises `ClusterError` where they cannot be built.

    The hash is of the sources alone: the folder of a program and its only file have one name each.
    """

    def build(folder: Path) -> None:
        with step("Building the streaming upstream and client from source"):
            flags = {"CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "-buildvcs=false -mod=readonly"}
            run([find_go(), "build", "-trimpath", "-o", f"{folder}/", "./..."], cwd=SOURCES, env=flags)

    return cached("bench-gateway-programs", hash_of(files=SOURCES.glob("**/*.*")), build)


def chat(model: str, content: str, *, stream: bool = False) -> dict[str, Any]:
    """The body of a request."""
    return {"model": model, "messages": [{"role": "user", "content": content}], "stream": stream}


def stream(programs: Path, url: str, model: str, *, clients: int, streams: int, frames: int, apart_ms: int) -> Any:
    """Ask for so many streams in a closed loop of so many clients; what the client says of them."""
    body = json.dumps(chat(model, f"{frames} frames, {apart_ms} ms apart", stream=True))
    command: list[str | Path] = [programs / "streams", url, str(clients), str(streams), str(frames), body]
    seen = json.loads(run(command, timeout=_SECONDS))
    if not seen["frames"]:
        raise ClusterError(f"no frame came from {url}: {seen['reason']}")
    return seen
