"""What the gateway sees of a cluster: a real API server that knows our kinds, and workers that are Ready."""

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.operator.api import Api, Json, connected
from cluster.control_plane import ControlPlane
from cluster.progress import step
from modelpool_api import INITIAL_STATE, WorkerState, shortest_path
from modelpool_operator.api import crd, names
from modelpool_operator.kube import paths

NAMESPACE = "bench"
_TIME = "2026-01-02T03:04:05Z"


@contextmanager
def site(folder: Path, workers: dict[str, list[str]]) -> Iterator[Path]:
    """A kubeconfig of a control plane with a Ready worker at each endpoint; ``workers`` is model → endpoints."""
    with ControlPlane(folder / "state") as cluster:
        with step("Making the workers known to the API server"):
            asyncio.run(_fill(cluster, workers))
        yield cluster.client_kubeconfig("modelpool-gateway", ["system:masters"])


async def _fill(cluster: ControlPlane, workers: dict[str, list[str]]) -> None:
    async with connected(cluster) as api:
        await api.define(crd.definitions())
        await api.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        for model, endpoints in workers.items():
            for number, endpoint in enumerate(endpoints):
                await _ready(api, f"{model}-{number}", model, endpoint)


async def _ready(api: Api, name: str, model: str, endpoint: str) -> None:
    """Bring a worker to Ready by the moves that the API server takes; no operator runs that would mind."""
    spec = {
        "pool": "default",
        "memory": "1Gi",
        "model": {"name": model, "capability": "text-to-text", "source": "file:///bench"},
    }
    meta = {"name": name, "namespace": NAMESPACE}
    worker = {"apiVersion": names.API_VERSION, "kind": names.MODEL_WORKER, "metadata": meta, "spec": spec}
    await api.create(paths.workers(NAMESPACE), worker)
    told: list[Json] = []
    path = [INITIAL_STATE, *(shortest_path(INITIAL_STATE, WorkerState.READY) or ())]
    await _tell(api, name, {"state": str(path[0])})
    for start, to in itertools.pairwise(path):
        told.append({"from": str(start), "to": str(to), "reason": "Bench", "time": _TIME})
        await _tell(api, name, {"state": str(to), "transitions": told, "endpoint": endpoint})


async def _tell(api: Api, name: str, status: Json) -> None:
    await api.patch(paths.workers(NAMESPACE, name, "status"), {"status": status})
