"""The threads beside the event loop: one, or some, run the model, and one prepares inputs for it."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, TypeVar

_T = TypeVar("_T")

#: The model's threads yield to the event loop where CPUs are short, so that probes are answered.
_MODEL_NICENESS: Final = 5


def model_thread(number: int = 1) -> ThreadPoolExecutor:
    """Return the one thread that calls the model, or a number of them."""
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
