"""The states of one worker as they pass, read from a watch and printed with the time since it was applied."""

import json
import queue
import threading
import time
from collections import deque
from types import TracebackType
from typing import Any, Self

from cluster.host import ClusterError
from cluster.target import Target

ENDS = ("Failed", "Dead")


class Story:
    """Watches a ModelWorker in the background; `until` and `show` print what has happened."""

    def __init__(self, target: Target, namespace: str, name: str) -> None:
        self.name = name
        self.status: dict[str, Any] = {}
        self._started = time.monotonic()
        self._lines: queue.Queue[tuple[float, dict[str, Any] | None]] = queue.Queue()
        self._told = 0
        self._shown = ""
        self._untold: deque[tuple[float, dict[str, Any]]] = deque()
        path = '-o=jsonpath={.status}{"\\n"}'
        only = f"--field-selector=metadata.name={name}"  # it may not be there yet
        self._watch = target.stream("get", "mw", only, f"--namespace={namespace}", "--watch", path)
        self._reader = threading.Thread(target=self._read, name=f"watch {name}", daemon=True)

    def __enter__(self) -> Self:
        self._reader.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._watch.kill()
        self._reader.join()
        with self._watch:  # closes its pipes and collects it
            pass

    def until(self, state: str, seconds: float) -> None:
        """Print moves up to the one that leads to ``state``; none, where the last one printed led there already.

        Raises `ClusterError` with the worker's own words when it ends otherwise, or takes longer than ``seconds``.
        """
        deadline = time.monotonic() + seconds
        while self._shown != state:
            if self._shown in ENDS:
                raise ClusterError(f"the worker {self.name} is {self._shown}, expected {state}: {self._why()}")
            if self._untold:
                self._print_next()
                continue
            if not self._take(deadline - time.monotonic()):
                now = self.status.get("state", "no state")
                raise ClusterError(f"the worker {self.name} was not {state} within {seconds:g} s: {now}, {self._why()}")

    def show(self) -> None:
        """Print what has happened meanwhile, without waiting."""
        while self._take(0):
            pass
        while self._untold:
            self._print_next()

    def _why(self) -> str:
        failure = self.status.get("lastFailure", {}).get("message", "")
        return str(failure or self.status.get("message") or self.status.get("reason") or "no reason given")

    def _take(self, seconds: float) -> bool:
        """Take one change in; False when none came in time."""
        try:
            at, status = self._lines.get(timeout=seconds) if seconds > 0 else self._lines.get_nowait()
        except queue.Empty:
            return False
        if status is None:
            assert self._watch.stderr is not None
            raise ClusterError(f"the watch of the worker {self.name} ended: {self._watch.stderr.read(1000).strip()}")
        self.status = status
        if not self._told and status.get("state"):
            print(f"  {at - self._started:6.1f} s  {'':>10}   {self._first_state():<11}", flush=True)
            self._told = 1
        moves = status.get("transitions", [])
        self._untold.extend((at, move) for move in moves[self._told - 1 + len(self._untold) :])
        return True

    def _first_state(self) -> str:
        moves = self.status.get("transitions", [])
        return str(moves[0]["from"] if moves else self.status["state"])

    def _print_next(self) -> None:
        at, move = self._untold.popleft()
        self._told += 1
        reason = move.get("reason", "")
        print(f"  {at - self._started:6.1f} s  {move['from']:>10} → {move['to']:<11} {reason}", flush=True)
        self._shown = move["to"]

    def _read(self) -> None:
        assert self._watch.stdout is not None
        for line in self._watch.stdout:
            if line.strip():
                self._lines.put((time.monotonic(), json.loads(line)))
        self._lines.put((time.monotonic(), None))
