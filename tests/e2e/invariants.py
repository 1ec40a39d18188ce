"""What must hold at every recorded version, checked from outside: a list of violations, empty where all is well."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from e2e.watchers import PODS, POOLS, WORKERS, Json, Version
from modelpool_api import INITIAL_STATE, WorkerState, allowed_moves
from modelpool_operator.api.quantity import parse_mib_floor

ENDED = frozenset({WorkerState.FAILED, WorkerState.DEAD})


def violations(versions: Sequence[Version]) -> list[str]:
    """Check a whole recording: the ledger's sums, legal moves, one pod per worker, nothing that runs uncharged."""
    by_uid: dict[str, list[Version]] = defaultdict(list)
    for version in versions:
        by_uid[version.uid].append(version)
    lives = list(by_uid.values())
    return [
        *(found for life in lives if life[0].kind == POOLS for version in life for found in ledger_violations(version)),
        *(found for life in lives if life[0].kind == WORKERS for found in move_violations(life)),
        *pod_violations([life for life in lives if life[0].kind == PODS]),
        *charge_violations(
            [life for life in lives if life[0].kind == PODS], [life for life in lives if life[0].kind == POOLS]
        ),
    ]


def ledger_violations(pool: Version) -> Iterator[str]:
    """The sum is the ledger's, within the budget, and no sweep had to repair anything."""
    status, spec = pool.status, pool.body["spec"]
    if "reserved" not in status:
        return
    ledger: dict[str, Json] = status.get("ledger") or {}
    for unit, budget in (("memoryMiB", parse_mib_floor(str(spec["memory"]))), ("gpus", int(spec.get("gpus") or 0))):
        reserved, total = status["reserved"][unit], sum(entry[unit] for entry in ledger.values())
        if reserved != total:
            yield f"pool {pool.name} at {pool.number}: reserved {reserved} {unit}, the ledger sums up to {total}"
        if reserved > budget:
            yield f"pool {pool.name} at {pool.number}: reserved {reserved} {unit} of {budget}"
    if repairs := status.get("ledgerRepairs"):
        yield f"pool {pool.name} at {pool.number}: {repairs} ledger repairs, expected none"


def move_violations(life: Sequence[Version]) -> Iterator[str]:
    """One worker's versions: only moves of the table, a reason that stays once it has ended, a chain that links."""
    moves = allowed_moves()
    told = [version for version in life if version.status.get("state")]
    if told and told[0].status["state"] != INITIAL_STATE:
        yield f"worker {told[0].name} began as {told[0].status['state']}, expected {INITIAL_STATE}"
    for before, after in pairwise(told):
        start, to = WorkerState(before.status["state"]), WorkerState(after.status["state"])
        if start != to and to not in moves[start]:
            yield f"worker {after.name} at {after.number}: {start} → {to} is not a legal move"
        if start in ENDED and before.status.get("reason") != after.status.get("reason"):
            yield f"worker {after.name} at {after.number}: its reason changed after its end"
    for version in told:
        chain = version.status.get("transitions") or []
        if chain and chain[-1]["to"] != version.status["state"]:
            yield f"worker {version.name} at {version.number}: the last transition does not end in its state"
        if any(one["to"] != two["from"] for one, two in pairwise(chain)):
            yield f"worker {version.name} at {version.number}: its transitions are not a chain"


def pod_violations(pods: Iterable[Sequence[Version]]) -> Iterator[str]:
    """Every pod has one owner, and a worker never has a second one."""
    seen: dict[str, str] = {}
    for life in pods:
        owners = life[0].body["metadata"].get("ownerReferences") or []
        if len(owners) != 1:
            yield f"pod {life[0].name} has {len(owners)} owners, expected one ModelWorker"
            continue
        if other := seen.get(owners[0]["uid"]):
            yield f"worker {owners[0]['name']} had two pods: {other} and {life[0].uid}"
        seen[owners[0]["uid"]] = life[0].uid


def charge_violations(pods: Iterable[Sequence[Version]], pools: Iterable[Sequence[Version]]) -> Iterator[str]:
    """From the lifting of its gate until it is gone, a pod stands in the ledger at every version of a pool."""
    lives = list(pools)
    for life in pods:
        free = next((each.number for each in life if not each.gone and not _gated(each)), None)
        if free is None:
            continue
        end = next((each.number for each in life if each.gone), None)
        if not any(_charged_throughout(pool, life[0].uid, free, end) for pool in lives):
            yield f"pod {life[0].name} could run uncharged between {free} and {end or 'now'}"


def _charged_throughout(pool: Sequence[Version], pod: str, first: int, end: int | None) -> bool:
    before = [each for each in pool if each.number <= first]
    within = [each for each in pool if first < each.number and (end is None or each.number < end)]
    return bool(before) and all(_holds(each, pod) for each in [before[-1], *within])


def _holds(pool: Version, pod: str) -> bool:
    return any(entry["podUID"] == pod for entry in (pool.status.get("ledger") or {}).values())


def _gated(pod: Version) -> bool:
    return bool(pod.body["spec"].get("schedulingGates"))
