"""What a team has: a namespace with pools and workers, and a recording of all that happens in it."""

import contextlib
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
from kubernetes import client

from e2e.installation import GATEWAY_PODS, Installation
from e2e.invariants import violations
from e2e.machine import metric, processes_with, until
from e2e.watchers import GROUP, MODELS, PODS, POOLS, VERSION, WORKERS, Json, Recorder

LABEL = "modelpool-e2e"
MODEL = "minilm"
#: 256 tokens or more each: the most that the model reads of a text.
LONG_TEXT = "The quick brown fox jumps over the lazy dog, and the dog does not mind it at all. " * 16
MAX_INPUTS = 2048


@dataclass(frozen=True)
class LongRequest:
    """A request on its way."""

    answer: "Future[httpx.Response]"
    texts: int

    def assert_answered(self) -> None:
        """It is answered, or will be, in full."""
        response = self.answer.result(timeout=180)
        assert response.status_code == 200, response.text
        assert len(response.json()["data"]) == self.texts


class Team:
    """One namespace under the ``restricted`` Pod Security Standard; leaving it checks that nothing stays behind."""

    def __init__(self, api: client.ApiClient, installation: Installation) -> None:
        self.installation = installation
        self.namespace = f"team-{uuid.uuid4().hex[:8]}"
        self.core = client.CoreV1Api(api)
        self.objects = client.CustomObjectsApi(api)
        self.recorder = Recorder(api, self.namespace)
        self._threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="client")
        self._volumes: list[str] = []

    def __enter__(self) -> Self:
        labels = {LABEL: "true", "pod-security.kubernetes.io/enforce": "restricted"}
        self.core.create_namespace({"metadata": {"name": self.namespace, "labels": labels}})
        self.recorder.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._clear()
        finally:
            self._threads.shutdown(cancel_futures=True)
            self.recorder.__exit__()
            self.core.delete_namespace(self.namespace)
            for volume in self._volumes:
                self.core.delete_persistent_volume(volume)

    # What a user does

    def pool(self, name: str = "pool", *, memory: str = "4Gi", **spec: Any) -> None:
        """Make a pool with short times."""
        times = {"minResidencySeconds": 0, "failedRetentionSeconds": 1, "restartLimit": 1, "drainTimeoutSeconds": 60}
        self._create(POOLS, "ModelPool", name, {"memory": memory, **times, **spec})

    def worker(self, name: str, source: str = "", *, model: Json | None = None, **spec: Any) -> None:
        """Make a worker of the real model; without a source from the model image on the node.

        ``model`` has other fields of the spec's model.
        """
        where = source or f"oci://{self.installation.environment.model_image}"
        served = {"name": MODEL, "capability": "text-embedding", "source": where, **(model or {})}
        self._create(WORKERS, "ModelWorker", name, {"pool": "pool", "memory": "2Gi", "model": served, **spec})

    def model(
        self, name: str, source: str = "", *, served: Json | None = None, change: Json | None = None, **spec: Any
    ) -> None:
        """Make a Model that requests call by its own name; without a source it is the real model.

        ``served`` has other fields of its workers' model, ``change`` others of their spec, ``spec`` of its own.
        """
        where = source or f"oci://{self.installation.environment.model_image}"
        model = {"name": name, "capability": "text-embedding", "source": where, **(served or {})}
        worker = {"pool": "pool", "memory": "2Gi", "model": model, **(change or {})}
        self._create(MODELS, "Model", name, {"worker": worker, **spec})

    def secret(self, name: str, **values: str) -> None:
        """Make a Secret."""
        self.core.create_namespaced_secret(self.namespace, {"metadata": {"name": name}, "stringData": values})

    def claim(self, name: str, folder: Path) -> None:
        """Make a volume claim that is a folder of this machine."""
        volume = f"{self.namespace}-{name}"
        size = {"storage": "1Gi"}
        shared: Json = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
        term = {"matchExpressions": [{"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}]}
        spec = {
            **shared,
            "capacity": size,
            "local": {"path": str(folder)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
            "persistentVolumeReclaimPolicy": "Retain",
        }
        self.core.create_persistent_volume({"metadata": {"name": volume}, "spec": spec})
        self._volumes.append(volume)
        wanted = {**shared, "resources": {"requests": size}, "volumeName": volume}
        self.core.create_namespaced_persistent_volume_claim(
            self.namespace, {"metadata": {"name": name}, "spec": wanted}
        )

    def change(self, worker: str, **spec: Any) -> None:
        """Change fields of a worker's spec."""
        self.objects.patch_namespaced_custom_object(GROUP, VERSION, self.namespace, WORKERS, worker, {"spec": spec})

    def delete(self, worker: str) -> None:
        """Delete a worker, as ``kubectl delete --wait=false`` does."""
        self.objects.delete_namespaced_custom_object(GROUP, VERSION, self.namespace, WORKERS, worker)

    def kubectl(self, *words: str, stdin: str = "") -> str:
        """What kubectl prints in this namespace."""
        return self.installation.kubectl(f"--namespace={self.namespace}", *words, stdin=stdin)

    def events(self, worker: str, last: str) -> list[tuple[str, str]]:
        """(type, reason) of the Events about a worker, oldest first, once there is one of the reason ``last``.

        An Event is written after the status that it is about, so it comes a moment later.
        """
        about = f"involvedObject.kind=ModelWorker,involvedObject.name={worker}"

        def told() -> list[tuple[str, str]]:
            found = self.core.list_namespaced_event(self.namespace, field_selector=about).items
            found.sort(key=lambda each: int(each.metadata.resource_version))
            moves = [(each.type, each.reason) for each in found]
            return moves if last in [f"{each.reason}/{each.action}" for each in found] else []

        return until(told, f"an Event {last} about {worker}", 20)

    # What a client does

    def url(self, worker: str) -> str:
        """Where a worker's Service answers, within the cluster's network."""
        return f"http://{self.core.read_namespaced_service(worker, self.namespace).spec.cluster_ip}:8080"

    def embed(self, worker: str, *texts: str, **fields: Any) -> httpx.Response:
        """Ask a worker for embeddings through its Service, from within the cluster's network.

        A refused connection is tried again for a while: a Service leads to a pod a moment after it is ready.
        """
        url = self.url(worker)
        deadline = time.monotonic() + 15
        while True:
            try:
                return ask(url, *texts, **fields)
            except httpx.ConnectError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def begin_long_request(self, worker: str, seconds: float) -> "LongRequest":
        """Start one request that takes about that long by a measurement; returns once the worker is at it."""
        texts = [LONG_TEXT] * min(MAX_INPUTS, max(8, round(seconds / self._seconds_per_text(worker))))
        answer = self._threads.submit(self.embed, worker, *texts)
        address = self.address(worker)
        until(lambda: metric(address, "modelpool_worker_pending_requests") == 1, "the request is admitted", 30)
        return LongRequest(answer, len(texts))

    def _seconds_per_text(self, worker: str) -> float:
        """What one text of a long request takes, measured over a second: a short one would measure the way there."""
        texts = 4
        while True:
            began = time.monotonic()
            self.embed(worker, *[LONG_TEXT] * texts).raise_for_status()
            taken = time.monotonic() - began
            if taken > 1 or texts == MAX_INPUTS:
                return taken / texts
            texts = min(MAX_INPUTS, texts * 4)

    def address(self, worker: str) -> str:
        """The address of a worker's pod."""
        return str(self.core.read_namespaced_pod(self.pod_name(worker), self.namespace).status.pod_ip)

    @contextlib.contextmanager
    def gateways(self, *, closed: bool = False, **values: Any) -> Iterator[str]:
        """Gateways in this namespace, as the chart makes them; gives the URL of their Service.

        ``closed``: workers made meanwhile answer only who has their pool's token.
        """
        worker = {"worker": {"inference": {"closed": True}}} if closed else {}
        self.installation.install(gateway={"namespaces": [self.namespace], **values}, **worker)
        try:
            service = self.core.read_namespaced_service("modelpool-gateway", self.namespace)
            yield f"http://{service.spec.cluster_ip}"
        finally:
            self.installation.install()
            pods = self.core.list_namespaced_pod
            until(lambda: not pods(self.namespace, label_selector=GATEWAY_PODS).items, "the gateways are gone", 120)

    # What an observer sees

    def worker_uid(self, worker: str) -> str:
        """The uid of a worker."""
        return str(self.recorder.latest(WORKERS, worker)["metadata"]["uid"])

    def pod_name(self, worker: str) -> str:
        """The name of a worker's pod; fails where it has never had one."""
        uid = self.worker_uid(worker)
        pods = (each.body["metadata"] for each in self.recorder.versions(PODS))
        found = {pod["name"] for pod in pods if pod["ownerReferences"][0]["uid"] == uid}
        assert len(found) == 1, f"expected one pod of worker {worker}, there were {sorted(found)}"
        return found.pop()

    def status(self, worker: str) -> Json:
        """The latest recorded status of a worker."""
        found: Json = self.recorder.latest(WORKERS, worker)["status"]
        return found

    def pool_status(self, name: str = "pool") -> Json:
        """The latest recorded status of a pool."""
        found: Json = self.recorder.latest(POOLS, name)["status"]
        return found

    def assert_nothing_left_of(self, worker: str, pool: str = "pool") -> None:
        """No pod, no ledger entry and no process of a worker are left."""
        self.recorder.catch_up()
        uid = self.worker_uid(worker)
        assert self.recorder.versions(PODS, self.pod_name(worker))[-1].gone
        assert uid not in (self.pool_status(pool).get("ledger") or {})
        assert processes_of(uid) == []

    def assert_invariants(self) -> None:
        """Nothing that must never be was there at any recorded version."""
        self.recorder.catch_up()
        found = violations([version for kind in (POOLS, WORKERS, PODS) for version in self.recorder.versions(kind)])
        assert found == [], f"{self.recorder.story()}"

    # How it ends

    def _clear(self) -> None:
        for model in {version.name for version in self.recorder.versions(MODELS)}:
            with contextlib.suppress(client.ApiException):  # a test may have deleted it
                self.objects.delete_namespaced_custom_object(GROUP, VERSION, self.namespace, MODELS, model)
            self.recorder.until_gone(MODELS, model)
        workers = {version.name for version in self.recorder.versions(WORKERS)}
        for worker in workers:
            with contextlib.suppress(client.ApiException):  # a test may have deleted it
                self.delete(worker)
        for worker in workers:
            self.recorder.until_gone(WORKERS, worker)
        pods = {version.name for version in self.recorder.versions(PODS)}
        for pod in pods:
            self.recorder.until_gone(PODS, pod)
        for pool in {version.name for version in self.recorder.versions(POOLS)}:
            self.recorder.until_now(POOLS, pool, lambda seen: not seen.status.get("ledger"), "its ledger is empty")
            self.objects.delete_namespaced_custom_object(GROUP, VERSION, self.namespace, POOLS, pool)
            self.recorder.until_gone(POOLS, pool)
        self.assert_invariants()
        left = {version.name: processes_of(version.uid) for version in self.recorder.versions(WORKERS)}
        assert not any(left.values()), f"processes of workers that are gone: {left}"

    def _create(self, plural: str, kind: str, name: str, spec: Json) -> None:
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "metadata": {"name": name}, "spec": spec}
        self.objects.create_namespaced_custom_object(GROUP, VERSION, self.namespace, plural, body)
        self.recorder.until(plural, name, lambda _: True, "recorded")


def ask(url: str, *texts: str, **fields: Any) -> httpx.Response:
    """POST to a worker's embeddings endpoint and return its answer, whatever it is."""
    body = {"model": MODEL, "input": list(texts), **fields}
    return httpx.post(f"{url}/v1/embeddings", json=body, timeout=180, trust_env=False)


def processes_of(worker_uid: str) -> list[int]:
    """Processes on this machine that belong to a worker."""
    return processes_with("MODELPOOL_WORKER_ID", worker_uid)
