"""One run: so many workers over ten pools through a whole life, the operator restarted in the middle."""

import asyncio
import base64
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.operator import process
from bench.operator.api import Api, Json, connected
from bench.operator.observer import Observer
from bench.operator.stand_ins import StandIns, serving
from cluster.control_plane import ControlPlane, kwok_node
from cluster.host import ClusterError
from control_plane.operator_runs.process import HOME, OperatorProcess
from modelpool_operator.api import crd, names
from modelpool_operator.kube import paths
from modelpool_worker.machine import Machine

NAMESPACE = "bench"
POOLS = 10
NODES = 10
PATIENCE = 240.0
QUIET_SECONDS = 60.0
#: As the chart installs it; the harness of the tests has shorter periods.
SETTINGS = {"SWEEP_SECONDS": "30", "MAINTENANCE_SECONDS": "5", "LEASE_SECONDS": "15", "LOG_LEVEL": "warning"}
#: Nobody goes by himself until the pools say so.
POOL = {
    "memory": "512Gi",
    "idleTimeoutSeconds": 3600,
    "evictAfterSeconds": 7200,
    "minResidencySeconds": 0,
    "drainTimeoutSeconds": 5,
}


@dataclass(frozen=True)
class Stage:
    """What a run works with."""

    api: Api
    seen: Observer
    stand_ins: StandIns
    operator: OperatorProcess


async def measure(cluster: ControlPlane, folder: Path, count: int) -> dict[str, Any]:
    """Drive ``count`` workers through their lives; return the figures. Raises `ClusterError` where one is stuck."""
    async with _stage(cluster, folder) as stage:
        figures: dict[str, Any] = {"workers": count}
        figures |= await _birth(stage, [f"w{number:04d}" for number in range(count)])
        await _one_request_each(stage, count)
        figures |= await _quiet(stage, count)
        first = await process.counters(stage.operator.metrics_port)
        spent, peak = _spent(stage.operator)
        figures |= await _restart(stage, count)
        figures |= await _end(stage)
        second = await process.counters(stage.operator.metrics_port)
        more, peak_after = _spent(stage.operator)
        total = first + second
        lives = count + max(1, count // 10)
        figures |= {
            "api_writes_per_life_step": round(total.writes / (total.moves + lives), 2),  # being accepted is a step too
            "api_reads_per_worker": round(total.reads / lives, 2),
            "conflict_rate": round(total.refused / total.writes, 4),
            "cpu_ms_per_worker": round((spent + more) * 1e3 / lives, 1),
            "rss_mb": round(max(peak, peak_after), 1),
            "ledger_repairs": total.repairs,
            "answers": dict(total.by_answer),
        }
        stage.operator.assert_clean()
        return figures


@asynccontextmanager
async def _stage(cluster: ControlPlane, folder: Path) -> AsyncIterator[Stage]:
    tokens = folder / "tokens"
    tokens.mkdir(parents=True)
    user = cluster.client_kubeconfig("modelpool-operator", ["system:masters"])
    async with connected(cluster) as api, serving(NODES) as stand_ins:
        await _install(api)
        await asyncio.gather(*(api.create(paths.pools(NAMESPACE), _pool(number)) for number in range(POOLS)))
        seen = Observer(api, NAMESPACE, stand_ins, tokens)
        operator = OperatorProcess(folder, user, None, **SETTINGS)
        async with asyncio.TaskGroup() as group:  # a watch that breaks ends the run
            watching = group.create_task(seen.run())
            try:
                await _started(operator)
                await _token_files(api, tokens)
                yield Stage(api, seen, stand_ins, operator)
            finally:
                watching.cancel()
                operator.kill()


async def _install(api: Api) -> None:
    """Our CRDs, the namespaces, the nodes."""
    await api.define(crd.definitions())
    for name in (HOME, NAMESPACE):
        await api.create("/api/v1/namespaces", {"metadata": {"name": name}})
    for number in range(NODES):
        await api.create("/api/v1/nodes", kwok_node(f"node-{number}", number))


async def _birth(stage: Stage, workers: Sequence[str]) -> dict[str, Any]:
    """Apply all of them at once; each has a pod, then is Ready."""
    before = await process.counters(stage.operator.metrics_port)
    began = time.monotonic()
    applied = await _apply(stage.api, workers)
    await stage.seen.until(lambda: all(name in stage.seen.pod_seen for name in workers), "a pod for each", PATIENCE)
    last_pod = max(stage.seen.pod_seen[name] for name in workers)
    await stage.seen.until(lambda: stage.seen.count()["Ready"] == len(workers), "all Ready", PATIENCE)
    ready = time.monotonic()
    after = await process.counters(stage.operator.metrics_port)
    waited = sorted(stage.seen.pod_seen[name] - applied[name] for name in workers)
    return {
        "pods_per_s": round(len(workers) / (last_pod - began), 1),
        "created_to_pod_p50_s": round(statistics.median(waited), 3),
        "created_to_pod_p99_s": round(waited[min(len(waited) - 1, len(waited) * 99 // 100)], 3),
        "ready_per_s": round(len(workers) / (ready - began), 1),
        "reconciles_per_s": round((after.reconciles - before.reconciles) / (ready - began), 1),
    }


async def _one_request_each(stage: Stage, count: int) -> None:
    """Every worker has a request, and is done with it."""
    stage.stand_ins.all(Machine.admit)
    await stage.seen.until(lambda: stage.seen.count()["Processing"] == count, "all Processing", PATIENCE)
    stage.stand_ins.all(Machine.done)
    await stage.seen.until(lambda: stage.seen.count()["Ready"] == count, "all Ready again", PATIENCE)


async def _quiet(stage: Stage, count: int) -> dict[str, Any]:
    """Nothing happens for a minute."""
    before, spent = await process.counters(stage.operator.metrics_port), _spent(stage.operator)[0]
    await asyncio.sleep(QUIET_SECONDS)
    after = await process.counters(stage.operator.metrics_port)
    minutes = QUIET_SECONDS / 60
    return {
        "noop_reconciles_per_object_minute": round(
            (after.reconciles - before.reconciles) / (count + POOLS) / minutes, 2
        ),
        "quiet_writes_per_minute": round((after.writes - before.writes) / minutes, 1),
        "quiet_cpu_share": round((_spent(stage.operator)[0] - spent) / QUIET_SECONDS, 3),
    }


async def _restart(stage: Stage, count: int) -> dict[str, Any]:
    """While no operator runs a tenth is told to stop and as many are new; a new operator brings all to their ends."""
    stage.operator.stop()
    tenth = max(1, count // 10)
    leaving = sorted(stage.seen.states)[:tenth]
    shutdown = {"spec": {"shutdown": True}}
    await asyncio.gather(*(stage.api.patch(paths.workers(NAMESPACE, name), shutdown) for name in leaving))
    await _apply(stage.api, [f"n{number:04d}" for number in range(tenth)])
    began = time.monotonic()
    await _started(stage.operator)

    def settled() -> bool:
        states = stage.seen.count()
        return states["Dead"] == tenth and states["Ready"] == count and stage.seen.pods == count

    await stage.seen.until(settled, "settled after the restart", PATIENCE)
    return {"restart_to_settled_s": round(time.monotonic() - began, 2)}


async def _end(stage: Stage) -> dict[str, Any]:
    """The pools' house rules become short: all are Idle, evicted, Dead, and nothing is reserved."""
    began = time.monotonic()
    living = stage.seen.count()["Ready"]
    short = {"spec": {"idleTimeoutSeconds": 1, "evictAfterSeconds": 2}}
    await asyncio.gather(*(stage.api.patch(paths.pools(NAMESPACE, _name(number)), short) for number in range(POOLS)))
    total = len(stage.seen.states)
    await stage.seen.until(lambda: stage.seen.count()["Dead"] == total, "all Dead", PATIENCE)
    taken = time.monotonic() - began
    pools = await asyncio.gather(*(stage.api.get(paths.pools(NAMESPACE, _name(number))) for number in range(POOLS)))
    left = [pool["metadata"]["name"] for pool in pools if pool["status"]["ledger"] or stage.seen.pods]
    if left:
        raise ClusterError(f"all workers are Dead and pools {left} still have reservations, or pods are left")
    repairs = sum(pool["status"].get("ledgerRepairs", 0) for pool in pools)
    return {"evicted_per_s": round(living / taken, 1), "ledger_repairs_in_status": repairs}


async def _apply(api: Api, workers: Sequence[str]) -> dict[str, float]:
    """Create workers, as many at once as the client may; return when each was sent."""
    sent: dict[str, float] = {}

    async def one(number: int, name: str) -> None:
        sent[name] = time.monotonic()
        await api.create(paths.workers(NAMESPACE), _worker(name, number % POOLS))

    await asyncio.gather(*(one(number, name) for number, name in enumerate(workers)))
    return sent


async def _started(operator: OperatorProcess) -> None:
    operator.start()
    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError):
            await process.counters(operator.metrics_port)
            return
        if not operator.running or time.monotonic() > deadline:
            raise ClusterError(f"the operator does not run; its log ends: {operator.log.read_text()[-1500:]}")
        await asyncio.sleep(0.05)


async def _token_files(api: Api, folder: Path) -> None:
    """The pools' tokens, which a kubelet would mount; the operator makes them for the first workers."""
    warm = [f"first-{number}" for number in range(POOLS)]
    await asyncio.gather(*(api.create(paths.workers(NAMESPACE), _worker(name, n)) for n, name in enumerate(warm)))
    deadline = time.monotonic() + PATIENCE
    for number in range(POOLS):
        path = paths.secrets(NAMESPACE, f"modelpool-{_name(number)}-token")
        while True:
            with contextlib.suppress(ClusterError):
                secret = await api.get(path)
                (folder / _name(number)).write_bytes(base64.b64decode(secret["data"]["token"]))
                break
            if time.monotonic() > deadline:
                raise ClusterError(f"the operator made no {path}")
            await asyncio.sleep(0.1)
    await asyncio.gather(*(api.delete(paths.workers(NAMESPACE, name)) for name in warm))
    while (await api.get(paths.workers(NAMESPACE)))["items"]:
        if time.monotonic() > deadline:
            raise ClusterError("the first workers are not gone")
        await asyncio.sleep(0.2)


def _spent(operator: OperatorProcess) -> tuple[float, float]:
    return process.cpu_seconds(operator.pid), process.peak_mib(operator.pid)


def _name(pool: int) -> str:
    return f"pool-{pool}"


def _pool(number: int) -> Json:
    meta = {"name": _name(number), "namespace": NAMESPACE}
    return {"apiVersion": names.API_VERSION, "kind": names.MODEL_POOL, "metadata": meta, "spec": POOL}


def _worker(name: str, pool: int) -> Json:
    model = {"name": "bench", "capability": "text-embedding", "source": "file:///bench"}
    spec = {"pool": _name(pool), "memory": "1Gi", "model": model}
    meta = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": names.API_VERSION, "kind": names.MODEL_WORKER, "metadata": meta, "spec": spec}
