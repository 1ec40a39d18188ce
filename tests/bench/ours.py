"""The worker as a process, with the environment that the operator gives it."""

import json
from pathlib import Path

from bench.place import Place
from bench.servers import Program

MODEL_NAME = "bench"


def settings(place: Place, *, capability: str, model: Path, dtype: str, port: int) -> dict[str, str]:
    """The environment of a worker's container; its second port is any free one."""
    state = place.scratch / "worker"
    state.mkdir(exist_ok=True)
    (state / "token").write_text("bench")
    values = {
        "WORKER_ID": "bench",
        "MODEL_NAME": MODEL_NAME,
        "CAPABILITY": capability,
        "MODEL_SOURCE": f"file://{model}",
        "DTYPE": dtype,
        "GPUS": "0",
        "IDLE_TIMEOUT_SECONDS": "3600",
        "DRAIN_TIMEOUT_SECONDS": "1",
        "LINGER_SECONDS": "0",
        "HOST": "127.0.0.1",
        "INFERENCE_PORT": str(port),
        "LIFECYCLE_PORT": "0",
        "TOKEN_DIR": str(state),
        "CACHE_DIR": str(state),
        "TERMINATION_FILE": str(state / f"termination-{port}"),
    }
    return {f"MODELPOOL_{name}": value for name, value in values.items()}


def command(place: Place) -> tuple[str, ...]:
    return (str(place.python), "-m", "modelpool_worker.start")


def program(place: Place, *, capability: str, model: Path, dtype: str, port: int) -> Program:
    """The worker as one of the servers."""
    environment = settings(place, capability=capability, model=model, dtype=dtype, port=port)
    return Program(f"ours {dtype}", command(place), port, "/readyz", environment)


def dtype_in_use(log: Path) -> str:
    """What ``auto`` became, as the worker's log says it."""
    for line in log.read_text(errors="replace").splitlines():
        if '"model loaded"' in line:
            return str(json.loads(line)["dtype"])
    return ""
