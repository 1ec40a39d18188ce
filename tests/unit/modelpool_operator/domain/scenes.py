"""Workers, pools, pods and pongs for the tables: built as the API server and the worker would send them."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

from modelpool_api import FLIP_STATES, MemoryReport, Pong, WorkerState, WorkerTransition, shortest_path
from modelpool_operator.api import names
from modelpool_operator.domain.objects import Amount, PoolView, WorkerView, pool_view, worker_view
from modelpool_operator.domain.plan import Plan
from modelpool_operator.domain.podview import PodView, format_time, pod_view
from modelpool_operator.domain.room import Candidate
from modelpool_operator.domain.seen import Seen

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
UID = "0a1b2c3d-0000-4000-8000-000000000001"
POD_UID = "90000000-0000-4000-8000-000000000001"
BOOT = "boot-1"
MODEL = {"name": "minilm", "capability": "text-embedding", "source": "file:///models/minilm"}

Json = dict[str, Any]


def ago(seconds: float) -> str:
    """The time so many seconds before NOW, as the API writes it."""
    return format_time(NOW - timedelta(seconds=seconds))


def chain(*states: str, seconds: float = 0.0) -> list[Json]:
    """The transitions of a worker that passed these states, the last one so many seconds ago."""
    return [
        {"from": str(start), "to": str(to), "reason": "Test", "message": "", "time": ago(seconds)}
        for start, to in itertools.pairwise(states)
    ]


def worker(
    state: WorkerState | str | None = WorkerState.READY,
    *,
    since: float = 0.0,
    status: Json | None = None,
    meta: Json | None = None,
    **spec: Any,
) -> WorkerView:
    """A worker that has been in ``state`` for ``since`` seconds; in ``status`` and ``meta`` None removes."""
    shown: Json = {}
    if state is not None:
        known = state in list(WorkerState)
        path = shortest_path(WorkerState.SPAWNING, WorkerState(state)) if known else None
        shown = {
            "state": str(state),
            "reason": "Test",
            "message": "",
            "endpoint": "http://minilm.team-a:8080",
            "transitions": chain(WorkerState.SPAWNING, *(path or ()), seconds=since),
        }
        if state not in (WorkerState.SPAWNING,):
            shown["podUID"] = POD_UID
        if state in FLIP_STATES:
            shown |= {"readyTime": ago(since), "mirrored": {"bootID": BOOT, "seq": 1}}
    shown |= status or {}
    metadata: Json = {
        "name": "minilm",
        "namespace": "team-a",
        "uid": UID,
        "resourceVersion": "100",
        "generation": 1,
        "creationTimestamp": ago(since),
        "finalizers": [names.WORKER_FINALIZER],
    }
    metadata |= meta or {}
    body = {"pool": "default", "model": MODEL, "memory": "1Gi", **spec}
    return worker_view(
        {
            "metadata": {key: value for key, value in metadata.items() if value is not None},
            "spec": {key: value for key, value in body.items() if value is not None},
            "status": {key: value for key, value in shown.items() if value is not None},
        }
    )


def entry(memory_mib: int = 1024, gpus: int = 0, *, pod_uid: str = POD_UID, name: str = "minilm") -> Json:
    """One reservation."""
    return {"name": name, "podUID": pod_uid, "memoryMiB": memory_mib, "gpus": gpus, "since": ago(60)}


def pool(
    ledger: Json | None = None,
    *,
    status: Json | None = None,
    deleting: bool = False,
    name: str = "default",
    **spec: Any,
) -> PoolView:
    """A pool with this ledger, by uid of the worker; its sum is right."""
    entries = ledger or {}
    shown: Json = {
        "ledger": entries,
        "reserved": {
            "memoryMiB": sum(each["memoryMiB"] for each in entries.values()),
            "gpus": sum(each["gpus"] for each in entries.values()),
        },
        **(status or {}),
    }
    meta: Json = {"name": name, "namespace": "team-a", "uid": "pool-uid", "resourceVersion": "50", "generation": 1}
    if deleting:
        meta["deletionTimestamp"] = ago(1)
    return pool_view({"metadata": meta, "spec": {"memory": "64Gi", "gpus": 8, **spec}, "status": shown})


def charged(**spec: Any) -> PoolView:
    """The pool while it holds the worker's reservation."""
    return pool({UID: entry()}, **spec)


def container(
    *,
    running: bool = False,
    started: float = 0.0,
    restarts: int = 0,
    waiting: str = "",
    said: str = "",
    exit_code: int | None = None,
    exit_reason: str = "Error",
    words: str = "",
    over: bool = False,
) -> Json:
    """The container's status. ``exit_code`` is its last process's; ``over``: it is in state, not in lastState."""
    state: Json = {}
    if running:
        state = {"running": {"startedAt": ago(started)}}
    elif waiting:
        state = {"waiting": {"reason": waiting, "message": said}}
    found: Json = {"name": names.WORKER_CONTAINER, "restartCount": restarts, "state": state}
    if exit_code is not None:
        ended = {"exitCode": exit_code, "reason": exit_reason, "message": words, "finishedAt": ago(1)}
        if over:
            found["state"] = {"terminated": ended}
        else:
            found["lastState"] = {"terminated": ended}
    return found


def pod(
    box: Json | None = None,
    *,
    gated: bool = False,
    lifted: float | None = None,
    scheduled: bool = True,
    ready: bool = False,
    deleting: bool = False,
    phase: str = "Running",
    uid: str = POD_UID,
    owner: str = UID,
    conditions: tuple[Json, ...] = (),
    gates: tuple[str, ...] = (),
    status: Json | None = None,
) -> PodView:
    """The worker's pod; ``box`` is a container status, ``lifted`` says how long ago the gate was lifted."""
    meta: Json = {
        "name": f"minilm-{UID[:5]}",
        "namespace": "team-a",
        "uid": uid,
        "resourceVersion": "70",
        "ownerReferences": [{"uid": owner, "controller": True}],
    }
    if lifted is not None:
        meta["annotations"] = {names.ANNOTATION_GATE_LIFTED: ago(lifted)}
    if deleting:
        meta["deletionTimestamp"] = ago(1)
    held = [{"name": names.QUOTA_GATE}] if gated else []
    spec: Json = {"schedulingGates": held + [{"name": gate} for gate in gates]}
    on_node = scheduled and not gated
    if on_node:
        spec["nodeName"] = "node-1"
    found = [{"type": "PodScheduled", "status": str(on_node)}, {"type": "Ready", "status": str(ready)}]
    return pod_view(
        {
            "metadata": meta,
            "spec": spec,
            "status": {
                "phase": phase,
                "podIP": "10.0.0.7" if on_node else None,
                "conditions": [*found, *conditions],
                "containerStatuses": [box] if box is not None else [],
                **(status or {}),
            },
        }
    )


def running(*, ready: bool = True, **options: Any) -> PodView:
    """A pod whose container runs."""
    return pod(container(running=True), ready=ready, **options)


def pong(
    state: WorkerState = WorkerState.READY,
    *steps: tuple[WorkerState, WorkerState],
    seq: int = 1,
    boot: str = BOOT,
    pending: int = 0,
    unused: float | None = 0.0,
    age: float = 0.0,
    measured: int = 0,
) -> Pong:
    """What the worker says; ``steps`` are its last moves, the last of them has number ``seq``."""
    first = seq - len(steps) + 1
    return Pong(
        worker_id=UID,
        boot_id=boot,
        state=state,
        seq=seq,
        timestamp=0.0,
        queue_depth=0,
        pending_requests=pending,
        unused_for=unused if state in FLIP_STATES else None,
        transitions=tuple(
            WorkerTransition(seq=first + number, from_state=start, to_state=to, reason=f"Step{to}", age=age)
            for number, (start, to) in enumerate(steps)
        ),
        device="cpu",
        memory=MemoryReport(measured_mib=measured, resident_mib=measured) if measured else None,
    )


def seen(of: WorkerView, **what: Any) -> Seen:
    """A sight of a worker in a pool that holds its reservation, unless something else is said."""
    return Seen(worker=of, **{"pool": charged(), **what})


def candidate(
    name: str,
    state: WorkerState = WorkerState.IDLE,
    memory_mib: int = 1024,
    gpus: int = 0,
    *,
    unused: float | None = 1000.0,
    priority: int = 0,
    pending: int = 0,
    pinned: bool = False,
    young: bool = False,
) -> Candidate:
    """A worker that holds a reservation."""
    return Candidate(
        name, name, state, Amount(memory_mib, gpus), priority, unused, pending, pinned, young, idle_timeout=300.0
    )


def moved(plan: Plan) -> list[tuple[str, str]]:
    """The plan's moves as (state, reason)."""
    return [(str(move.to), move.reason) for move in plan.moves]


def acts(plan: Plan) -> list[str]:
    """The names of the plan's actions."""
    return [type(action).__name__ for action in plan.actions]
