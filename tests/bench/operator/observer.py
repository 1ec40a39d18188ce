"""What is seen of workers and pods from outside, and when: the benchmark's clock and its conditions."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from bench.operator.api import Api, Json
from bench.operator.stand_ins import StandIns
from cluster.host import ClusterError
from modelpool_operator.api import names
from modelpool_operator.kube import paths


class Observer:
    """Watches workers and pods of one namespace; starts and ends the stand-ins of the pods that run."""

    def __init__(self, api: Api, namespace: str, stand_ins: StandIns, tokens: Path) -> None:
        self._api, self._namespace = api, namespace
        self._stand_ins, self._tokens = stand_ins, tokens
        #: by the worker's name
        self.states: dict[str, str] = {}
        self.pod_seen: dict[str, float] = {}
        self._pods: dict[str, str] = {}
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Watch for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._api.watch(paths.workers(self._namespace), self._worker))
            group.create_task(self._api.watch(paths.pods(self._namespace), self._pod))

    def count(self) -> Counter[str]:
        """How many workers are in each state; those that the operator has not seen yet have none."""
        return Counter(self.states.values())

    @property
    def pods(self) -> int:
        return len(self._pods)

    async def until(self, condition: Callable[[], bool], what: str, seconds: float) -> float:
        """Return the seconds until the condition held. Raises `ClusterError` after so many."""
        began = time.monotonic()
        while not condition():
            left = began + seconds - time.monotonic()
            if left <= 0:
                raise ClusterError(f"{what}: not within {seconds:g} s; states {dict(self.count())}, {self.pods} pods")
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), min(left, 5.0))
            except TimeoutError:
                continue
        return time.monotonic() - began

    def _worker(self, kind: str, worker: Json) -> None:
        name = worker["metadata"]["name"]
        if kind == "DELETED":
            self.states.pop(name, None)
        else:
            self.states[name] = worker.get("status", {}).get("state", "")
        self._changed.set()

    def _pod(self, kind: str, pod: Json) -> None:
        meta = pod["metadata"]
        uid, labels = meta["uid"], meta["labels"]
        ip = pod.get("status", {}).get("podIP", "")
        if kind == "DELETED":
            self._stand_ins.end(self._pods.pop(uid, ip), labels[names.LABEL_WORKER_UID])
        else:
            self.pod_seen.setdefault(labels[names.LABEL_WORKER], time.monotonic())
            if self._pods.get(uid, "") != ip:
                token = self._tokens / labels[names.LABEL_POOL]
                self._stand_ins.start(ip, labels[names.LABEL_WORKER_UID], token)
            self._pods[uid] = ip
        self._changed.set()
