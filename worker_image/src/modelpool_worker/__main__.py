"""Wiring: settings, ports, signals, the runner; then the exit code."""

import asyncio
import os
import signal
import socket
import time
import uuid
from pathlib import Path
from typing import Final

import structlog
import uvloop
from pydantic import ValidationError

from modelpool_api.pod import ENV_PREFIX, EXIT_CRASHED, EXIT_NEVER_LOADS, TERMINATION_FILE
from modelpool_worker import logs
from modelpool_worker.machine import Machine, Move
from modelpool_worker.metrics import WorkerMetrics
from modelpool_worker.runner import Exit, Runner
from modelpool_worker.scheduling.request_queue import RequestQueue
from modelpool_worker.settings import WorkerSettings, settings_sentence
from modelpool_worker.termination import leave, write_sentence
from modelpool_worker.web import inference_app, lifecycle_app
from modelpool_worker.web.bearer import BearerToken
from modelpool_worker.web.server import create_server, listen

_log = structlog.get_logger(__name__)
_CLOSE_SECONDS: Final = 8.0


def main() -> None:
    """Run one worker; ends the process with the exit code that the operator reads."""
    logs.configure("info")
    try:
        settings = WorkerSettings()
    except ValidationError as error:
        sentence = settings_sentence([str(item["loc"][0]) for item in error.errors()])
        _log.error("settings refused", sentence=sentence)
        write_sentence(Path(os.environ.get(f"{ENV_PREFIX}TERMINATION_FILE", TERMINATION_FILE)), sentence)
        leave(EXIT_NEVER_LOADS)
    logs.configure(settings.log_level)
    prepare_environment(settings)
    try:
        # its transports send what one turn of the loop has written at once: an eighth more requests than asyncio's own
        end = uvloop.run(run(settings))
    except OSError as error:
        end = Exit(EXIT_CRASHED, f"the worker could not open its ports ({type(error).__name__}); are they taken?")
    except Exception as error:
        _log.exception("worker failed")
        end = Exit(EXIT_CRASHED, f"the worker failed in a way nobody expected ({type(error).__name__}); see its log")
    if end.sentence:
        write_sentence(settings.termination_file, end.sentence)
    _log.info("exit", code=end.code)
    leave(end.code)


def prepare_environment(settings: WorkerSettings) -> None:
    """Set what the model libraries read when they are imported: offline, no telemetry, no code from a hub."""
    hub = settings.model_source.startswith("hf://")
    os.environ |= {
        "HF_HOME": str(settings.cache_dir),
        "HF_MODULES_CACHE": str(settings.cache_dir / "modules"),
        "HF_HUB_OFFLINE": "0" if hub else "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_ETAG_TIMEOUT": "10",
        "HF_HUB_DOWNLOAD_TIMEOUT": "30",
        "USE_HUB_KERNELS": "NO",
        "DIFFUSERS_DISABLE_REMOTE_CODE": "1",
        "DO_NOT_TRACK": "1",
        # texts are tokenized in one thread; more would fight with the model for the CPUs
        "TOKENIZERS_PARALLELISM": "false",
        # threads of one calculation look for each other for some microseconds before they sleep: one text alone is
        # written a third faster than if they slept at once. Where CPUs are shared they must not look for long: with the
        # library's own patience a token then takes half a second
        "GOMP_SPINCOUNT": "2000",
        # what is compiled for a matrix of a new size is kept: 340 MB at most, half of the library's own bound
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "512",
    }


async def run(settings: WorkerSettings) -> Exit:
    """Open the ports, live, close the ports. Raises ``OSError`` when a port cannot be opened."""
    metrics = WorkerMetrics()
    machine = Machine(
        worker_id=settings.worker_id,
        boot_id=uuid.uuid4().hex,
        idle_timeout=settings.idle_timeout_seconds,
        clock=time.monotonic,
        on_move=lambda move: _show(move, metrics),
    )
    queue = RequestQueue(
        max_requests=settings.max_queued_requests,
        max_inputs=settings.max_queued_inputs,
    )
    token = BearerToken(settings.token_file, time.monotonic)
    runner = Runner(settings, machine, queue, metrics, housekeeping=token.refresh)
    inference = create_server(
        inference_app.create_app(settings, machine, runner, metrics, token=token if settings.closed_inference else None)
    )
    lifecycle = create_server(
        lifecycle_app.create_app(
            machine, token, gauges=runner.gauges, wall_clock=lambda: time.clock_gettime(time.CLOCK_REALTIME)
        )
    )
    sockets = [listen(settings.host, settings.inference_port), listen(settings.host, settings.lifecycle_port)]
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, machine.terminate)
    servers = (inference, lifecycle)
    serving = [asyncio.create_task(server.serve(sockets=[sock])) for server, sock in zip(servers, sockets, strict=True)]
    _log.info("listening", inference=_port(sockets[0]), lifecycle=_port(sockets[1]), boot_id=machine.boot_id)
    try:
        return await runner.live()
    finally:
        machine.close()
        for server in servers:
            server.should_exit = True
        await asyncio.wait(serving, timeout=_CLOSE_SECONDS)


def _show(move: Move, metrics: WorkerMetrics) -> None:
    metrics.show_state(move.to_state)
    _log.info("state", seq=move.seq, was=str(move.from_state), now=str(move.to_state), reason=move.reason)


def _port(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


if __name__ == "__main__":
    main()
