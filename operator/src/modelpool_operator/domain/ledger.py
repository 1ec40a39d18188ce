"""The ledger of a pool: what one write to its status changes. The one place where reservations come and go."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from modelpool_api import STATES, WorkerState
from modelpool_operator.domain.conditions import Condition, merged
from modelpool_operator.domain.objects import NOTHING, Amount, Entry, PoolView, WorkerView, sum_amounts
from modelpool_operator.domain.podview import PodView, format_time

Json = dict[str, Any]


@dataclass(frozen=True)
class LedgerChange:
    """What is known to have changed, each part confirmed by a read of the API server.

    ``released`` entries' pods are gone. ``reserved`` pods exist and are gated. ``found`` pods run without an entry, and
    ``lost`` counts released entries that had no worker any more: both are repairs, 0 in a run that loses nothing.
    """

    released: tuple[Entry, ...] = ()
    reserved: tuple[tuple[WorkerView, str], ...] = ()
    found: tuple[tuple[WorkerView, PodView], ...] = ()
    lost: int = 0

    @property
    def empty(self) -> bool:
        """Whether nothing changes."""
        return not (self.released or self.reserved or self.found)


def status_patch(
    pool: PoolView, change: LedgerChange, workers: Sequence[WorkerView], now: datetime, *, recount: bool = False
) -> dict[str, Any] | None:
    """Return the merge patch of the pool's status, or None where nothing has to be written.

    The counts of workers go along with writes of the ledger, and with ``recount`` by themselves where they differ.

    The sum is computed from the ledger as it will be, never carried on from a number.
    """
    after = dict(pool.ledger)
    patch: dict[str, Json | None] = {}
    for entry in change.released:
        if after.pop(entry.uid, None) is not None:
            patch[entry.uid] = None
    added = [(worker, uid) for worker, uid in change.reserved] + [(worker, pod.uid) for worker, pod in change.found]
    for worker, pod_uid in added:
        since = format_time(now)
        after[worker.uid] = Entry(worker.uid, worker.name, pod_uid, worker.need, since)
        patch[worker.uid] = {
            "name": worker.name,
            "podUID": pod_uid,
            "memoryMiB": worker.need.memory_mib,
            "gpus": worker.need.gpus,
            "since": since,
        }
    reserved = sum_amounts(entry.amount for entry in after.values())
    wanted: Json = {
        "observedGeneration": pool.generation,
        "reserved": _amount(reserved),
        "available": _amount(pool.budget - reserved),
        "conditions": merged(
            pool.status.get("conditions") or (), _conditions(pool, reserved), generation=pool.generation, now=now
        ),
    }
    repairs = len(change.found) + change.lost
    if repairs:
        wanted["ledgerRepairs"] = int(pool.status.get("ledgerRepairs") or 0) + repairs
    status = {name: value for name, value in wanted.items() if pool.status.get(name) != value}
    if patch or "ledger" not in pool.status:
        # the API server wants reserved and ledger together
        status["ledger"] = patch
        status["reserved"] = wanted["reserved"]
        status["evicted"] = evicted(pool, change.released, workers)
        recount = True
    if recount and counts_differ(pool, workers):
        status["workers"] = _replacing(pool.status.get("workers") or {}, count_states(workers))
    return status or None


def counts_differ(pool: PoolView, workers: Iterable[WorkerView]) -> bool:
    """Whether ``status.workers`` is not what is to be counted now."""
    return (pool.status.get("workers") or {}) != count_states(workers)


def count_states(workers: Iterable[WorkerView]) -> dict[str, int]:
    """Count workers by state; states without workers are left out."""
    counts = Counter(str(worker.state) for worker in workers if worker.state is not None)
    return {str(state): counts[state] for state in STATES if counts[state]}


def evicted(pool: PoolView, released: Iterable[Entry], workers: Iterable[WorkerView]) -> dict[str, int]:
    """Return how many workers have given their reservation back, by the reason of their end."""
    counts = Counter({str(reason): int(count) for reason, count in (pool.status.get("evicted") or {}).items()})
    by_uid = {worker.uid: worker for worker in workers}
    for entry in released:
        worker = by_uid.get(entry.uid)
        ended = worker is not None and worker.state in (WorkerState.EVICTING, WorkerState.FAILED, WorkerState.DEAD)
        counts[str(worker.status.get("reason") or "Unknown") if worker and ended else "PodLost"] += 1
    return dict(sorted(counts.items())[:64])


def _conditions(pool: PoolView, reserved: Amount) -> list[Condition]:
    over = reserved.beyond(pool.budget)
    found = []
    if pool.deleting:
        found.append(Condition("Ready", False, "Deleting", "the pool is deleted once its ledger is empty"))
        found.append(Condition("Reconciling", True, "Deleting", f"{reserved} still reserved"))
    elif not pool.admits:
        found.append(Condition("Ready", False, str(pool.spec.stop_policy), "spec.stopPolicy: no worker is admitted"))
    else:
        found.append(Condition("Ready", True, "Admitting", "workers that fit are admitted"))
    if over != NOTHING:
        found.append(Condition("OverBudget", True, "OverBudget", f"{over} more reserved than the budget has"))
    return found


def _amount(amount: Amount) -> dict[str, int]:
    return {"memoryMiB": amount.memory_mib, "gpus": amount.gpus}


def _replacing(old: Mapping[str, Any], new: Mapping[str, int]) -> dict[str, int | None]:
    """Return a merge patch that makes ``old`` equal ``new``."""
    return {**{name: None for name in old if name not in new}, **new}
