"""Kubelets that are played: they bind nothing and run no containers, but write what kubelets would.

The worker process of a pod is real where it counts for the operator: the worker's own state machine behind its own
lifecycle application, listening on the pod's address (loopback). What a process does is said by its model's source:

======================  ==========================================================
``file:///serve``       loads at once and serves
``file:///slow``        loads until the test says it is done
``file:///crash``       ends with exit code 1 whenever it is started
``file:///oom``         is killed for its memory whenever it is started
``file:///never``       ends with exit code 78: it can never load here
``file:///mute``        runs, and nobody listens on its port
``file:///unready``     loads and serves, and its readiness probe never succeeds
``file:///stuck``       its container is never started
``file:///no-image``    its image cannot be pulled
``file:///no-secret``   its container cannot be created
======================  ==========================================================
"""

import asyncio
import base64
import contextlib
import itertools
import os
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from modelpool_api import WorkerEvent, WorkerState
from modelpool_api.pod import ENV_IDLE_TIMEOUT_SECONDS, ENV_MODEL_SOURCE, LIFECYCLE_PORT
from modelpool_operator.api import names
from modelpool_worker.machine import Gauges, Machine
from modelpool_worker.web.bearer import BearerToken
from modelpool_worker.web.lifecycle_app import create_app
from modelpool_worker.web.server import create_server, listen

T = TypeVar("T")
Json = dict[str, Any]
NODE = "played-node"
POLL_SECONDS = 0.1
LINGER_SECONDS = 0.3
BACK_OFF_SECONDS = 0.3
BROKEN = "the weights are not what config.json says"
#: What a container waits for that is never started, by source: reason and message.
WAITING = {
    "file:///stuck": ("ContainerCreating", ""),
    "file:///no-image": ("ImagePullBackOff", "not found"),
    "file:///no-secret": ("CreateContainerConfigError", 'secret "hub-token" not found'),
}


def stamp() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")  # noqa: TID251


class Played:
    """One pod on the node: its container, and the process in it."""

    def __init__(self, pod: Json, ip: str, token_file: Path) -> None:
        self.name, self.uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        self.namespace, self.node = pod["metadata"]["namespace"], pod["spec"]["nodeName"]
        self.labels = pod["metadata"]["labels"]
        variables = {each["name"]: each.get("value", "") for each in pod["spec"]["containers"][0]["env"]}
        self.source = variables[ENV_MODEL_SOURCE]
        self.idle_timeout = float(variables[ENV_IDLE_TIMEOUT_SECONDS])
        self.ip, self.token_file = ip, token_file
        self.machine: Machine | None = None
        self.restarts, self.starts = 0, 0
        self.over = False
        #: answers in the process's stead
        self.instead: ASGIApp | None = None
        self.written: Json | None = None
        self._state: Json = {"waiting": {"reason": "ContainerCreating"}}
        self._last: Json = {}
        self._not_before = 0.0
        self._leaves_at: float | None = None
        self._server: Any = None
        self._serving: asyncio.Task[None] | None = None

    async def step(self) -> None:
        """Do what is due: start the process, start it again after its back-off, let an evicted one end."""
        now = time.monotonic()
        if self.source in WAITING:
            reason, message = WAITING[self.source]
            self._state = {"waiting": {"reason": reason, "message": message}}
            return
        if self.over or now < self._not_before:
            return
        if self.machine is None:
            self.restarts, self.starts = self.starts, self.starts + 1
            if self.source == "file:///crash":
                await self.end(1, BROKEN)
            elif self.source == "file:///oom":
                await self.end(137, reason="OOMKilled")
            elif self.source == "file:///never":
                await self.end(78, BROKEN)
            else:
                await self._boot()
            return
        if self.machine.state is not WorkerState.EVICTING or self.machine.pending:
            self._leaves_at = None
        elif self._leaves_at is None:
            self._leaves_at = now + LINGER_SECONDS
        elif now >= self._leaves_at:
            agreed = self.machine.evict_accepted
            await self.end(0 if agreed else 143, self.machine.reason if agreed else "")

    async def end(self, exit_code: int, words: str = "", reason: str = "Error") -> None:
        """The process ends; the kubelet starts it again but for exit code 0."""
        await self.hang_up()
        self.machine, self._leaves_at = None, None
        ended = {"exitCode": exit_code, "reason": "Completed" if exit_code == 0 else reason, "message": words}
        ended |= {"startedAt": stamp(), "finishedAt": stamp()}
        self._last = {"terminated": ended}
        self.over = exit_code == 0
        self._state = {"terminated": ended} if self.over else {"waiting": {"reason": "CrashLoopBackOff"}}
        self._not_before = time.monotonic() + BACK_OFF_SECONDS

    async def hang_up(self) -> None:
        """Nobody listens on the process's port any more."""
        if self.machine is not None:
            self.machine.close()
        server, serving = self._server, self._serving
        if serving is not None:
            server.should_exit = True
            await asyncio.wait([serving], timeout=0.3)  # who waits for news has his answer and goes
            server.force_exit = True
            await serving
        self._server = self._serving = None

    async def _boot(self) -> None:
        uid = self.labels[names.LABEL_WORKER_UID]
        machine = Machine(worker_id=uid, boot_id=uuid.uuid4().hex, idle_timeout=self.idle_timeout, clock=time.monotonic)
        self.machine, self._state = machine, {"running": {"startedAt": stamp()}}
        if self.source == "file:///mute":
            return
        token = BearerToken(self.token_file, time.monotonic)
        app = create_app(machine, token, gauges=lambda: Gauges(device="cpu"), wall_clock=lambda: 0.0)

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            await (self.instead or app)(scope, receive, send)

        self._server = create_server(answer)
        listener = listen(self.ip, LIFECYCLE_PORT)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        if self.source in ("file:///serve", "file:///unready"):
            machine.fire(WorkerEvent.LOADED, "ModelLoaded")

    @property
    def ready(self) -> bool:
        if self.source in ("file:///mute", "file:///unready"):
            return False
        serving = (WorkerState.READY, WorkerState.PROCESSING, WorkerState.IDLE)
        return self.machine is not None and self.machine.state in serving

    def status(self) -> Json:
        """The pod's status as a kubelet would write it."""
        running = "running" in self._state
        box = {"name": names.WORKER_CONTAINER, "restartCount": self.restarts, "state": self._state}
        box |= {"lastState": self._last if not self.over else {}, "ready": self.ready, "started": running}
        box |= {"image": "played", "imageID": ""}
        conditions = [
            {"type": "PodScheduled", "status": "True"},
            {"type": "Ready", "status": str(self.ready)},
        ]
        phase = "Succeeded" if self.over else "Running" if self.starts else "Pending"
        where = {"podIP": self.ip, "podIPs": [{"ip": self.ip}]} if self.starts else {}
        return {"phase": phase, "conditions": conditions, "containerStatuses": [box], **where}


class Kubelet:
    """Plays the nodes' pods on the loop it is run on; ask it from other threads by ``on_loop``."""

    def __init__(self, api: httpx.AsyncClient, folder: Path) -> None:
        self._api, self._folder = api, folder
        # two test runs on one machine take different ones
        network = f"127.{128 + os.getpid() % 127}"
        self._addresses = (f"{network}.{high}.{low}" for high, low in itertools.product(range(256), range(1, 255)))
        self._loop = asyncio.get_running_loop()
        self.pods: dict[str, Played] = {}
        #: the nodes that are up; what happens to the pods of others is not ours
        self.nodes = [NODE]
        #: pods whose status somebody else writes
        self.let_go: set[str] = set()
        #: namespaces whose deleted pods stay Terminating
        self.holding: set[str] = set()

    def on_loop(self, call: Callable[[], T]) -> T:
        """Run a function where the processes run, so that nothing happens in between."""

        async def run() -> T:
            return call()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(30)

    def await_on_loop(self, call: Callable[[], Any]) -> None:
        async def run() -> None:
            await call()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(30)

    async def run(self) -> None:
        await self._make_node(NODE)
        beat = 0.0
        ticking = asyncio.create_task(self._tick())
        try:
            while True:
                if time.monotonic() > beat:
                    await self._heartbeat()
                    beat = time.monotonic() + 5
                with contextlib.suppress(httpx.TransportError):
                    await self._pass()
                await asyncio.sleep(POLL_SECONDS)
        finally:
            ticking.cancel()
            for played in self.pods.values():
                await played.hang_up()

    async def _tick(self) -> None:
        """The processes' own clocks, however long a look at all pods takes."""
        while True:
            for played in self.pods.values():
                if played.machine is not None:
                    played.machine.tick()
            await asyncio.sleep(POLL_SECONDS)

    async def add_node(self, name: str) -> None:
        """One more node, only for pods that ask for it: it has a label and a taint ``own`` of its name."""
        await self._make_node(name, {"own": name}, [{"key": "own", "value": name, "effect": "NoSchedule"}])
        self.nodes.append(name)

    async def lose_node(self, name: str) -> None:
        """The node is cut off: its processes answer nobody, and nobody writes its pods' status any more."""
        self.nodes.remove(name)
        for played in list(self.pods.values()):
            if played.node == name:
                await played.hang_up()

    async def _pass(self) -> None:
        answer = await self._api.get("/api/v1/pods", params={"fieldSelector": "spec.nodeName!="})
        present = [pod for pod in answer.json()["items"] if pod["spec"]["nodeName"] in self.nodes]
        await asyncio.gather(*(self._one(pod) for pod in present))
        for uid in set(self.pods) - {pod["metadata"]["uid"] for pod in present}:
            await self.pods.pop(uid).hang_up()

    async def _one(self, pod: Json) -> None:
        meta = pod["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        if meta["uid"] in self.let_go:
            return
        played = self.pods.get(meta["uid"])
        if played is None:
            token = await self._token(pod)
            if token is None:
                return
            played = self.pods[meta["uid"]] = Played(pod, next(self._addresses), token)
        if "deletionTimestamp" in meta:
            if meta["namespace"] in self.holding:
                return
            if played.machine is not None:
                played.machine.terminate()
                if played.machine.pending:
                    return  # it finishes what it has
            await played.hang_up()
            body = {"gracePeriodSeconds": 0, "preconditions": {"uid": meta["uid"]}}
            await self._api.request("DELETE", path, json=body)
            return
        leaves = played.machine is not None and played.machine.state is WorkerState.EVICTING
        if leaves and meta["namespace"] in self.holding:
            return  # a process that ended now would free its pod, however late it is deleted
        await played.step()
        status = played.status()
        if status != played.written:
            content = {"content-type": "application/merge-patch+json"}
            answer = await self._api.patch(f"{path}/status", json={"status": status}, headers=content)
            assert answer.status_code in (200, 404), answer.text
            played.written = status

    async def _token(self, pod: Json) -> Path | None:
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["labels"][names.LABEL_POOL]
        answer = await self._api.get(f"/api/v1/namespaces/{namespace}/secrets/modelpool-{name}-token")
        if answer.status_code != 200:
            return None
        path = self._folder / pod["metadata"]["uid"]
        path.write_bytes(base64.b64decode(answer.json()["data"]["token"]))
        return path

    async def _make_node(self, name: str, labels: Json | None = None, taints: list[Json] | None = None) -> None:
        capacity = {"cpu": "64", "memory": "256Gi", "pods": "500", "nvidia.com/gpu": "8"}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels or {}}}
        node["spec"] = {"taints": taints or []}
        await self._api.post("/api/v1/nodes", json=node)
        status = {"capacity": capacity, "allocatable": capacity, "conditions": [{"type": "Ready", "status": "True"}]}
        content = {"content-type": "application/merge-patch+json"}
        await self._api.patch(f"/api/v1/nodes/{name}/status", json={"status": status}, headers=content)

    async def _heartbeat(self) -> None:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")  # noqa: TID251
        path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        content = {"content-type": "application/merge-patch+json"}
        for name in self.nodes:
            spec = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now}
            answer = await self._api.patch(f"{path}/{name}", json={"spec": spec}, headers=content)
            if answer.status_code == 404:
                lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}}
                await self._api.post(path, json={**lease, "spec": spec})
