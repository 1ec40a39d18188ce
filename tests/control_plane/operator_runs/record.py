"""What an observer saw of pools, workers and pods at every resourceVersion, and what must hold at each of them."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from modelpool_api import INITIAL_STATE, allowed_moves, parse_state
from modelpool_operator.api import names
from modelpool_operator.api.quantity import parse_mib_floor

Json = dict[str, Any]
PATHS = {
    "pool": f"/apis/{names.GROUP}/{names.VERSION}/{names.MODEL_POOLS}",
    "worker": f"/apis/{names.GROUP}/{names.VERSION}/{names.MODEL_WORKERS}",
    "pod": "/api/v1/pods",
}


@dataclass(frozen=True)
class Seen:
    version: int
    kind: str
    gone: bool
    obj: Json


class Recorder:
    """Watches all three kinds from the beginning; every change is one record."""

    def __init__(self, api: httpx.AsyncClient) -> None:
        self._api = api
        self._seen: list[Seen] = []

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for kind, path in PATHS.items():
                group.create_task(self._watch(kind, path))

    async def _watch(self, kind: str, path: str) -> None:
        version = (await self._list(path))["metadata"]["resourceVersion"]
        while True:
            query = {"watch": "1", "resourceVersion": version}
            with contextlib.suppress(httpx.TransportError):
                async with self._api.stream("GET", path, params=query, timeout=None) as answer:
                    async for line in answer.aiter_lines():
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            assert event["object"]["code"] == httpx.codes.GONE, line
                            version = await self._catch_up(kind, path)
                            break
                        version = event["object"]["metadata"]["resourceVersion"]
                        self._seen.append(Seen(int(version), kind, event["type"] == "DELETED", event["object"]))
            await asyncio.sleep(0.2)

    async def _list(self, path: str) -> Json:
        # right after its CRD is established a kind may not be served yet
        while (listed := await self._api.get(path)).status_code != httpx.codes.OK:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        found: Json = listed.json()
        return found

    async def _catch_up(self, kind: str, path: str) -> str:
        """Record how things are now: a definition that is applied anew makes watches begin anew."""
        listed = await self._list(path)
        version: str = listed["metadata"]["resourceVersion"]
        last = {each.obj["metadata"]["uid"]: each for each in self._seen if each.kind == kind}
        for obj in listed["items"]:
            before = last.pop(obj["metadata"]["uid"], None)
            if before is None or before.version < int(obj["metadata"]["resourceVersion"]):
                self._seen.append(Seen(int(obj["metadata"]["resourceVersion"]), kind, False, obj))
        for before in last.values():
            if not before.gone:
                self._seen.append(Seen(int(version), kind, True, before.obj))
        return version

    def of(self, namespace: str, kind: str | None = None, name: str | None = None) -> list[Seen]:
        """What was seen in a namespace, in the order in which it was written."""
        found = [
            each
            for each in list(self._seen)
            if each.obj["metadata"]["namespace"] == namespace
            and kind in (None, each.kind)
            and name in (None, each.obj["metadata"]["name"])
        ]
        return sorted(found, key=lambda each: each.version)

    def states(self, namespace: str, name: str) -> list[str]:
        """The states that a worker of this name was seen in, each once in a row."""
        seen = [each.obj.get("status", {}).get("state") for each in self.of(namespace, "worker", name)]
        return [state for state, _ in itertools.groupby(filter(None, seen))]

    def reserved(self, namespace: str, pool: str = "default") -> list[int]:
        """The reserved MiB that were seen, each once in a row."""
        seen = [each.obj.get("status", {}).get("reserved") for each in self.of(namespace, "pool", pool)]
        return [mib for mib, _ in itertools.groupby(each["memoryMiB"] for each in seen if each)]


def check(records: list[Seen], *, over_budget: bool = False) -> None:
    """Raise AssertionError where a promise was broken at any version that could be seen.

    ``over_budget`` for a run that shrinks its pool: then only a reservation that grows must be within the budget.
    """
    pools: dict[str, Json] = {}
    pods: dict[str, Json] = {}
    workers: dict[str, Json] = {}
    for each in records:
        uid = each.obj["metadata"]["uid"]
        table = {"pool": pools, "worker": workers, "pod": pods}[each.kind]
        before = table.pop(uid, None)
        if not each.gone:
            table[uid] = each.obj
        if each.kind == "pool":
            _ledger_is_exact(before, each.obj, over_budget=over_budget)
        if each.kind == "worker":
            _moves_are_legal(before, each.obj)
        entries = {key: value for pool in pools.values() for key, value in _ledger(pool).items()}
        _nothing_runs_uncharged(each, pods, entries)
        if each.kind == "worker" and each.gone:
            # whoever takes our finalizer off by force breaks this; the tests that do look for themselves
            assert uid not in entries, f"{each.version}: a worker vanished with its reservation"


def _ledger(pool: Json) -> Json:
    found: Json = pool.get("status", {}).get("ledger") or {}
    return found


def _ledger_is_exact(before: Json | None, pool: Json, *, over_budget: bool) -> None:
    reserved = pool.get("status", {}).get("reserved")
    if reserved is None:
        return
    version = pool["metadata"]["resourceVersion"]
    total = {key: sum(entry[key] for entry in _ledger(pool).values()) for key in ("memoryMiB", "gpus")}
    assert reserved == total, f"{version}: reserved is not the sum of the ledger"
    old = ((before or {}).get("status") or {}).get("reserved") or {"memoryMiB": 0, "gpus": 0}
    grew = any(reserved[key] > old[key] for key in reserved)
    if grew or not over_budget:
        assert reserved["memoryMiB"] <= parse_mib_floor(pool["spec"]["memory"]), f"{version}: beyond the budget"
        assert reserved["gpus"] <= pool["spec"].get("gpus", 0), f"{version}: beyond the budget"


def _moves_are_legal(before: Json | None, worker: Json) -> None:
    status, old = worker.get("status", {}), (before or {}).get("status", {})
    version, state, was = worker["metadata"]["resourceVersion"], status.get("state"), old.get("state")
    chain = status.get("transitions") or []
    if state is None:
        return
    if was is None:
        assert state == INITIAL_STATE, f"{version}: began in {state}"
    elif state != was:
        assert parse_state(state) in allowed_moves()[parse_state(was)], f"{version}: {was} → {state}"
    for entry in chain:
        assert parse_state(entry["to"]) in allowed_moves()[parse_state(entry["from"])], f"{version}: {entry}"
    for first, second in itertools.pairwise(chain):
        assert first["to"] == second["from"], f"{version}: the chain has a gap"
    if chain:
        assert chain[-1]["to"] == state, f"{version}: the chain does not end in the state"
    if was in ("Failed", "Dead"):
        assert status["reason"] == old["reason"], f"{version}: the reason of {was} changed"


def _nothing_runs_uncharged(each: Seen, pods: dict[str, Json], entries: Json) -> None:
    owners: list[str] = []
    for pod in _ours(pods):
        owner = pod["metadata"]["labels"][names.LABEL_WORKER_UID]
        owners.append(owner)
        gates = [gate["name"] for gate in pod["spec"].get("schedulingGates") or ()]
        if names.QUOTA_GATE not in gates:
            charged = entries.get(owner, {}).get("podUID")
            assert charged == pod["metadata"]["uid"], f"{each.version}: {pod['metadata']['name']} is not charged"
    assert len(owners) == len(set(owners)), f"{each.version}: two pods of one worker"


def _ours(pods: dict[str, Json]) -> Iterator[Json]:
    for pod in pods.values():
        if names.LABEL_WORKER_UID in (pod["metadata"].get("labels") or {}):
            yield pod
