"""Long steps say what they do and for how long."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

TTY_REFRESH_SECONDS = 1.0
LINE_EVERY_SECONDS = 15.0
_depth = threading.local()


def elapsed_text(seconds: float) -> str:
    """``12.3 s`` below a minute, ``4 min 05 s`` above."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"


@contextmanager
def step(title: str, *, stream: TextIO | None = None, every: float | None = None) -> Iterator[None]:
    """Show ``title`` while the block runs: one line rewritten each second on a terminal, elsewhere a line every 15 s.

    Ends with ``✓ title 12.3 s``, or ``✗ title 12.3 s`` when the block raises (the error passes through).
    A step inside a step is shown by its first and last line only.
    """
    out = stream or sys.stderr
    nested = getattr(_depth, "value", 0)
    _depth.value = nested + 1
    terminal = out.isatty() and not nested
    period = every if every is not None else (TTY_REFRESH_SECONDS if terminal else LINE_EVERY_SECONDS)
    indent = "  " * nested
    started = time.monotonic()
    done = threading.Event()

    def show(mark: str, *, last: bool) -> None:
        text = f"{indent}{mark} {title} {elapsed_text(time.monotonic() - started)}"
        if terminal:
            text = "\r\033[K" + text
        print(text, end="\n" if last or not terminal else "", file=out, flush=True)

    def refresh() -> None:
        while not done.wait(period):
            show("…", last=False)

    ticker = threading.Thread(target=refresh, name=f"progress {title}", daemon=True)
    if terminal:
        show("…", last=False)
    ticker.start()
    mark = "✗"
    try:
        yield
        mark = "✓"
    finally:
        done.set()
        ticker.join()
        _depth.value = nested
        show(mark, last=True)
