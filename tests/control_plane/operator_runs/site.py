"""A control plane with a played node and an observer, and a namespace of it for one test."""

import asyncio
import contextlib
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
from kubernetes import client

from cluster.control_plane import ControlPlane
from control_plane.operator_runs.kubelet import Kubelet, Played
from control_plane.operator_runs.process import HOME
from control_plane.operator_runs.record import Recorder, check
from modelpool_api.lifecycle import WorkerEvent
from modelpool_operator.api import crd, names
from modelpool_worker.machine import Machine

T = TypeVar("T")
Json = dict[str, Any]
MERGE = "application/merge-patch+json"
#: Rules of a pool whose workers live quickly; a test lengthens what it is not about.
QUICK = {
    "memory": "8Gi",
    "gpus": 4,
    "idleTimeoutSeconds": 600,
    "evictAfterSeconds": 600,
    "minResidencySeconds": 0,
    "failedRetentionSeconds": 1,
    "drainTimeoutSeconds": 5,
    "healthCheck": {"periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 2},
}


#: What ended a played node or an observer; from then on nothing can come true.
BROKEN: list[BaseException] = []


def until(condition: Callable[[], T], what: str | Callable[[], str] = "the condition", seconds: float = 25.0) -> T:
    """Return the first true value of the condition; ``what`` may be told at the end, when more is known."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert not BROKEN, BROKEN
        if time.monotonic() >= deadline:
            told = what if isinstance(what, str) else what()
            raise AssertionError(f"{told} did not come true within {seconds:g} s")
        time.sleep(0.05)
    return value


class World:
    """One namespace: makes, reads and changes pools and workers, and reaches into their processes."""

    def __init__(self, api: client.ApiClient, kubelet: Kubelet, recorder: Recorder, namespace: str) -> None:
        self.core, self.objects = client.CoreV1Api(api), client.CustomObjectsApi(api)
        self.api, self.kubelet, self.recorder, self.namespace = api, kubelet, recorder, namespace

    def pool(self, name: str = "default", **spec: Any) -> Json:
        body = {**QUICK, **spec}
        return self._create(names.MODEL_POOLS, names.MODEL_POOL, name, body)

    def open_pool(self, **spec: Any) -> None:
        """Make the pool and wait for its first, empty ledger."""
        self.pool(**spec)
        until(lambda: self.pool_status().get("reserved"), "the empty ledger")

    def worker(self, name: str = "w", source: str = "file:///serve", **spec: Any) -> Json:
        model = {"name": "m", "capability": "text-embedding", "source": source}
        return self._create(
            names.MODEL_WORKERS, names.MODEL_WORKER, name, {"pool": "default", "memory": "1Gi", "model": model, **spec}
        )

    def model(self, name: str = "m", source: str = "file:///serve", *, change: Json | None = None, **spec: Any) -> Json:
        """Make a Model; ``change`` replaces fields of its workers, ``spec`` fields of its own."""
        served = {"name": name, "capability": "text-embedding", "source": source}
        worker = {"pool": "default", "memory": "1Gi", "model": served, **(change or {})}
        return self._create(names.MODELS, names.MODEL, name, {"worker": worker, **spec})

    def worker_names(self) -> list[str]:
        """Names of the workers that there are."""
        where = (names.GROUP, names.VERSION, self.namespace, names.MODEL_WORKERS)
        return sorted(each["metadata"]["name"] for each in self.objects.list_namespaced_custom_object(*where)["items"])

    def model_ready(self, name: str = "m") -> tuple[str, str]:
        """Status and reason of a Model's condition Ready; empty before there is one."""
        for each in self.model_status(name).get("conditions") or ():
            if each["type"] == "Ready":
                return each["status"], each["reason"]
        return "", ""

    def ask(self, name: str = "m", keep_alive: int | None = None) -> None:
        """What a gateway does while somebody waits: make or renew the Model's demand Lease."""
        leases = client.CoordinationV1Api(self.api)
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")  # noqa: TID251
        lease = names.demand_lease(name)
        noted = {names.ANNOTATION_KEEP_ALIVE: None if keep_alive is None else str(keep_alive)}
        body: Json = {
            "metadata": {"name": lease, "labels": {names.LABEL_DEMAND: name}, "annotations": noted},
            "spec": {"renewTime": now, "holderIdentity": "gateway", "leaseDurationSeconds": 15},
        }
        try:
            leases.patch_namespaced_lease(lease, self.namespace, body, _content_type=MERGE)
        except client.ApiException as error:
            if error.status != 404:
                raise
            body["metadata"]["annotations"] = {key: value for key, value in noted.items() if value is not None}
            leases.create_namespaced_lease(self.namespace, body)

    def _create(self, plural: str, kind: str, name: str, spec: Json) -> Json:
        body = {"apiVersion": names.API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
        made: Json = self.objects.create_namespaced_custom_object(
            names.GROUP, names.VERSION, self.namespace, plural, body
        )
        return made

    def get(self, name: str = "w", plural: str = names.MODEL_WORKERS) -> Json | None:
        try:
            found: Json = self.objects.get_namespaced_custom_object(
                names.GROUP, names.VERSION, self.namespace, plural, name
            )
        except client.ApiException as error:
            if error.status == 404:
                return None
            raise
        return found

    def status(self, name: str = "w") -> Json:
        found: Json = (self.get(name) or {}).get("status") or {}
        return found

    def pool_status(self, name: str = "default") -> Json:
        found: Json = (self.get(name, names.MODEL_POOLS) or {}).get("status") or {}
        return found

    def model_status(self, name: str = "m") -> Json:
        found: Json = (self.get(name, names.MODELS) or {}).get("status") or {}
        return found

    def ledger(self, name: str = "default") -> Json:
        return self.pool_status(name).get("ledger") or {}

    def patch(self, name: str, spec: Json, plural: str = names.MODEL_WORKERS) -> None:
        self.objects.patch_namespaced_custom_object(
            names.GROUP, names.VERSION, self.namespace, plural, name, {"spec": spec}, _content_type=MERGE
        )

    def patch_meta(self, name: str, meta: Json, plural: str = names.MODEL_WORKERS) -> None:
        self.objects.patch_namespaced_custom_object(
            names.GROUP, names.VERSION, self.namespace, plural, name, {"metadata": meta}, _content_type=MERGE
        )

    def delete(self, name: str = "w", plural: str = names.MODEL_WORKERS) -> None:
        self.objects.delete_namespaced_custom_object(names.GROUP, names.VERSION, self.namespace, plural, name)

    def pods(self) -> list[Any]:
        found: list[Any] = self.core.list_namespaced_pod(self.namespace).items
        return found

    def events(self, name: str = "w") -> list[tuple[str, str]]:
        """(type, reason) of the Events about a worker, in order."""
        about = f"involvedObject.kind={names.MODEL_WORKER},involvedObject.name={name}"
        found = self.core.list_namespaced_event(self.namespace, field_selector=about).items
        return [(each.type, each.reason) for each in sorted(found, key=lambda each: each.event_time)]

    def reaches(self, state: str, name: str = "w", seconds: float = 25.0) -> Json:
        """Wait until the worker is in that state; return its status."""

        def there() -> Json | None:
            status = self.status(name)
            return status if status.get("state") == state else None

        found = until(there, lambda: self._story(name, state), seconds)
        assert found is not None
        return found

    def was(self, state: str, name: str = "w", seconds: float = 25.0) -> None:
        """Wait until the observer has seen the worker in a state that it may have left within milliseconds."""
        seen = self.recorder.states
        until(lambda: state in seen(self.namespace, name), lambda: self._story(name, state), seconds)

    def _story(self, name: str, wanted: str) -> str:
        return f"{name} {wanted} (states: {self.recorder.states(self.namespace, name)})"

    def vanishes(self, name: str = "w", plural: str = names.MODEL_WORKERS) -> None:
        until(lambda: self.get(name, plural) is None, f"{plural} {name} gone")

    def states(self, name: str = "w") -> list[str]:
        """The states that the observer has seen; it may lag behind a moment."""
        shown = self.status(name).get("state")
        if shown:
            until(lambda: (self.recorder.states(self.namespace, name) or [None])[-1] == shown, f"{shown} recorded")
        return self.recorder.states(self.namespace, name)

    def played(self, name: str = "w") -> Played:
        """The worker's pod on the played node."""

        def found() -> Played | None:
            for each in list(self.kubelet.pods.values()):
                if each.namespace == self.namespace and each.labels[names.LABEL_WORKER] == name:
                    return each
            return None

        pod = until(found, f"a pod of {name} on the node")
        assert pod is not None
        return pod

    def machine(self, name: str = "w") -> Machine:
        machine = until(lambda: self.played(name).machine, f"a process of {name}")
        assert machine is not None
        return machine

    def on_machine(self, do: Callable[[Machine], Any], name: str = "w") -> Any:
        """Do something in the worker process, where nothing can come between."""
        machine = self.machine(name)
        return self.kubelet.on_loop(lambda: do(machine))

    def load(self, name: str = "w") -> None:
        self.on_machine(lambda machine: machine.fire(WorkerEvent.LOADED, "ModelLoaded"), name)

    def hang_up(self, name: str = "w") -> None:
        """Nobody answers on the worker's port any more, though it runs."""
        self.kubelet.await_on_loop(self.played(name).hang_up)

    def crash(self, name: str = "w", exit_code: int = 1, words: str = "") -> None:
        played = self.played(name)
        self.kubelet.await_on_loop(lambda: played.end(exit_code, words))

    def settled(self, pools: tuple[str, ...] = ("default",)) -> bool:
        """No pod is left, and no reservation."""
        return not self.pods() and all(not self.ledger(pool) for pool in pools)

    def check(self, *, over_budget: bool = False) -> None:
        """What the observer saw keeps every promise."""
        pool = self.get("default", names.MODEL_POOLS)
        if pool is not None:
            version = int(pool["metadata"]["resourceVersion"])
            until(lambda: self.recorder.of(self.namespace, "pool")[-1].version >= version, "the record is complete")
        check(self.recorder.of(self.namespace), over_budget=over_budget)


class Site:
    """The control plane, its played node and its observer."""

    def __init__(self, cluster: ControlPlane, api: client.ApiClient, kubelet: Kubelet, recorder: Recorder) -> None:
        self.cluster, self.api, self.kubelet, self.recorder = cluster, api, kubelet, recorder

    def world(self) -> World:
        name = f"t-{uuid.uuid4().hex[:8]}"
        client.CoreV1Api(self.api).create_namespace({"metadata": {"name": name}})
        return World(self.api, self.kubelet, self.recorder, name)

    def sweep(self) -> None:
        """End all worlds, with all that waits in them for an operator: the next one would have to look after it."""
        core, objects = client.CoreV1Api(self.api), client.CustomObjectsApi(self.api)
        for plural in (names.MODEL_WORKERS, names.MODEL_POOLS):
            found = objects.list_cluster_custom_object(names.GROUP, names.VERSION, plural)["items"]
            for world in {each["metadata"]["namespace"] for each in found}:
                objects.delete_collection_namespaced_custom_object(names.GROUP, names.VERSION, world, plural)
            for each in found:
                meta = each["metadata"]
                if meta.get("finalizers"):
                    where = (names.GROUP, names.VERSION, meta["namespace"], plural, meta["name"])
                    change = {"metadata": {"finalizers": None}}
                    objects.patch_namespaced_custom_object(*where, change, _content_type=MERGE)
        for pod in core.list_pod_for_all_namespaces().items:
            where = (pod.metadata.name, pod.metadata.namespace)
            with contextlib.suppress(client.ApiException):  # its node has said at this moment that it is gone
                if pod.metadata.finalizers:
                    core.patch_namespaced_pod(*where, {"metadata": {"finalizers": None}})
                core.delete_namespaced_pod(*where, grace_period_seconds=0)
        for home in core.list_namespace().items:
            if home.metadata.name.startswith("t-") and not home.metadata.deletion_timestamp:
                core.delete_namespace(home.metadata.name)


def install(api: client.ApiClient) -> None:
    """Our CRDs, and the operator's namespace."""
    client.CoreV1Api(api).create_namespace({"metadata": {"name": HOME}})
    define(api)


def define(api: client.ApiClient) -> None:
    """Make our CRDs and wait until they are served."""
    extensions = client.ApiextensionsV1Api(api)
    for definition in crd.definitions().values():
        extensions.create_custom_resource_definition(definition)
        name = definition["metadata"]["name"]

        def established(name: str = name) -> bool:
            conditions = extensions.read_custom_resource_definition(name).status.conditions or ()
            return any(each.type == "Established" and each.status == "True" for each in conditions)

        until(established, f"{name} established")


@contextmanager
def running_site(cluster: ControlPlane, api: client.ApiClient, folder: Path) -> Iterator[Site]:
    """Play the node and watch, in a thread of their own, as long as the context lasts."""
    install(api)
    started: list[tuple[Kubelet, Recorder]] = []
    stop = threading.Event()
    ready = threading.Event()
    BROKEN.clear()

    async def run() -> None:
        pki = cluster.ca.parent
        context = ssl.create_default_context(cafile=str(cluster.ca))
        context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        async with httpx.AsyncClient(base_url=cluster.url, verify=context, trust_env=False, timeout=30) as http:
            kubelet, recorder = Kubelet(http, folder), Recorder(http)
            jobs = [asyncio.create_task(kubelet.run()), asyncio.create_task(recorder.run())]
            started.append((kubelet, recorder))
            ready.set()
            while not stop.is_set() and not any(job.done() for job in jobs):  # noqa: ASYNC110 - another thread's event
                await asyncio.sleep(0.1)
            for job in jobs:
                if not job.done():
                    job.cancel()
            results = await asyncio.gather(*jobs, return_exceptions=True)
            BROKEN.extend(result for result in results if isinstance(result, Exception))

    def main() -> None:
        try:
            asyncio.run(run())
        except Exception as error:
            BROKEN.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=main, name="played node")
    thread.start()
    ready.wait(30)
    try:
        yield Site(cluster, api, *started[0])
    finally:
        stop.set()
        thread.join(30)
    assert not BROKEN, BROKEN
