"""The threads beside the event loop: one, or some, run the model, and one prepares inputs for it."""

import asyncio
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, TypeVar

_T = TypeVar("_T")

#: The model's threads yield to the event loop where CPUs are short, so that probes are answered.
_MODEL_NICENESS: Final = 5
#: How long one of several threads that calculate waits for the interpreter while requests are answered. With Python's
#: own 5 ms a CPU stands idle meanwhile: a tenth fewer texts a second.
_SWITCH_SECONDS: Final = 0.0001


def model_thread(number: int = 1) -> ThreadPoolExecutor:
    """Return the one thread that calls the model, or a number of them."""
    if number > 1:
        sys.setswitchinterval(_SWITCH_SECONDS)
    return ThreadPoolExecutor(number, "model", initializer=_be_nice)


def prepare_thread() -> ThreadPoolExecutor:
    """Return the one thread that makes inputs ready."""
    return ThreadPoolExecutor(1, "prepare")


def in_thread(thread: ThreadPoolExecutor, work: Callable[[], _T]) -> Awaitable[_T]:
    """Run ``work`` there; to be called on the event loop."""
    return asyncio.get_running_loop().run_in_executor(thread, work)


def _be_nice() -> None:
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _MODEL_NICENESS)
