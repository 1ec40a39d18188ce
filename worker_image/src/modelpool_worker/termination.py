"""The last word of a process: a sentence in the termination file, then an exit code."""

import os
import sys
from pathlib import Path
from typing import NoReturn

import structlog

from modelpool_api.wire import MAX_MESSAGE_CHARS

_log = structlog.get_logger(__name__)


def write_sentence(path: Path, sentence: str) -> None:
    """Write the sentence, cut to 1024 characters and to what the kubelet takes (4096 bytes); never raises."""
    text = sentence[:MAX_MESSAGE_CHARS].encode("utf-8", "replace")
    try:
        path.write_bytes(text[:4096])
    except OSError as error:
        _log.warning("the termination file could not be written", error=type(error).__name__)


def leave(code: int) -> NoReturn:
    """End the process now with ``code``.

    Threads that still load or compute are not waited for: a load cannot be interrupted, and nothing is left to save.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
    os._exit(code)
