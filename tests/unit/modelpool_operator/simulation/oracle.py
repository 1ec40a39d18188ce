"""What must hold, written a second time and plainly: a model of the promises that shares no code with the deciders.

It sees every write to the world's objects in the instant it is made, and raises ``Violation``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise, product
from typing import TYPE_CHECKING, Any

from modelpool_operator.domain.admission import Admission
from modelpool_operator.domain.objects import Amount, PoolView, WorkerView
from modelpool_operator.domain.podview import PodView
from modelpool_operator.domain.room import Candidate, plan_room
from modelpool_worker.machine import Gauges

if TYPE_CHECKING:
    from unit.modelpool_operator.simulation.process import Process

#: The design's table, typed by hand on purpose: a table derived from the code could not disagree with it.
MOVES = {
    None: {"Spawning"},
    "Spawning": {"Loading", "Failed", "Evicting"},
    "Loading": {"Ready", "Failed", "Evicting"},
    "Ready": {"Processing", "Idle", "Loading", "Failed", "Evicting", "Dead"},
    "Processing": {"Ready", "Loading", "Failed", "Evicting", "Dead"},
    "Idle": {"Processing", "Loading", "Failed", "Evicting", "Dead"},
    "Evicting": {"Dead"},
    "Failed": {"Dead"},
    "Dead": set(),
}
ENDED = ("Evicting", "Failed", "Dead")
GENTLE = ("IdleEviction", "RoomEviction")

Size = tuple[int, int]


class Violation(AssertionError):  # noqa: N818 - it is what is reported, not an error of the program
    """A promise was broken."""


@dataclass
class Oracle:
    """Remembers who was charged, released and asked; each method judges one kind of event."""

    #: pod uid → worker uid, of every pod that ever was in the ledger
    charged: dict[str, str] = field(default_factory=dict)
    released: set[str] = field(default_factory=set)
    #: worker uid → the one pod that may ever run for it
    lifted: dict[str, str] = field(default_factory=dict)
    #: worker uid → why its process agreed to go without being forced
    agreed: dict[str, str] = field(default_factory=dict)
    #: pods that the kubelet has called ready at some time; whether it still does may be known late
    probed: set[str] = field(default_factory=set)
    #: pods whose gate somebody else took away: they run uncharged until the ledger is repaired
    smuggled: set[str] = field(default_factory=set)

    def copy(self) -> "Oracle":
        """Return one that remembers the same."""
        sets = set(self.released), dict(self.lifted), dict(self.agreed), set(self.probed), set(self.smuggled)
        return Oracle(dict(self.charged), *sets)

    def worker_written(self, before: WorkerView, after: WorkerView) -> None:
        """Judge a write to a ModelWorker's status: one legal move, told in the chain, the end's reason kept."""
        old, new = before.status, after.status
        start, to = old.get("state"), new.get("state")
        chain = new.get("transitions") or []
        if start != to:
            _hold(to in MOVES[start], f"{after.name}: {start} → {to} is not in the table")
            if start is not None:
                last = (chain[-1]["from"], chain[-1]["to"]) if chain else None
                _hold(last == (start, to), f"{after.name}: {start} → {to} is told as {last}")
        else:
            _hold(chain == (old.get("transitions") or []), f"{after.name}: the chain changed without a move")
        for first, then in pairwise(chain):
            _hold(first["to"] == then["from"], f"{after.name}: the chain is torn at {first['to']} → {then['from']}")
        _hold(len(chain) <= 20, f"{after.name}: {len(chain)} transitions")
        if start in ("Failed", "Dead"):
            _hold(old.get("reason") == new.get("reason"), f"{after.name}: {start} changed its reason")
        if (start, to) == ("Loading", "Ready"):
            _hold(new.get("podUID") in self.probed, f"{after.name}: Ready though the kubelet never said so")
        if start != to and to in ENDED and start not in ENDED and new.get("reason") in GENTLE:
            agreed = self.agreed.get(after.uid)
            _hold(agreed == new["reason"], f"{after.name}: {to} for {new['reason']} without having agreed ({agreed})")

    def pool_written(self, before: PoolView, after: PoolView, pods: Iterable[PodView]) -> None:
        """Judge a write to a ModelPool's status: an exact sum, no growth beyond the budget, releases that are due."""
        old, new = _ledger(before), _ledger(after)
        total = _total(_size(entry) for entry in new.values())
        told = after.status.get("reserved")
        if "ledger" in after.status:
            _hold(told is not None and _size(told) == total, f"reserved is {told}, the ledger sums up to {total}")
        here = {pod.uid for pod in pods}
        for uid, entry in old.items():
            if new.get(uid, {}).get("podUID") == entry["podUID"]:
                continue
            pod = entry["podUID"]
            _hold(pod not in here, f"{entry['name']}: released while its pod is there")
            _hold(pod not in self.released, f"{entry['name']}: released twice")
            self.released.add(pod)
        grown = {uid: entry for uid, entry in new.items() if old.get(uid, {}).get("podUID") != entry["podUID"]}
        for uid, entry in grown.items():
            _hold(uid not in old, f"{entry['name']}: an entry was replaced in one write, not released first")
            _hold(entry["podUID"] not in self.charged, f"{entry['name']}: charged twice for one pod")
            self.charged[entry["podUID"]] = uid
            self.smuggled.discard(entry["podUID"])
        repaired = int(after.status.get("ledgerRepairs") or 0) > int(before.status.get("ledgerRepairs") or 0)
        if grown and not repaired:
            _hold(_within(total, _budget(after)), f"{total} reserved of {_budget(after)}")

    def gate_lifted(self, pod: PodView, pool: PoolView | None) -> None:
        """Judge the lifting of a gate by the operator: charged before, and never a second pod for one worker."""
        entry = (_ledger(pool) if pool else {}).get(pod.owner_uid)
        _hold(entry is not None and entry["podUID"] == pod.uid, f"{pod.name}: its gate was lifted uncharged")
        first = self.lifted.setdefault(pod.owner_uid, pod.uid)
        _hold(first == pod.uid, f"{pod.name}: a second pod for one worker was let run")

    def pod_deleted(self, pod: PodView, owner: WorkerView | None, process: "Process | None") -> None:
        """Judge a deletion of a pod by the operator: its worker has ended, and a gentle end interrupts nobody."""
        if owner is None or self.lifted.get(owner.uid) != pod.uid:
            return
        state, reason = owner.status.get("state"), owner.status.get("reason")
        _hold(state in ENDED, f"{pod.name}: deleted while its worker is {state}")
        _hold(reason not in GENTLE or process is None or not process.open, f"{pod.name}: deleted for {reason}, busy")

    def agreed_to_go(self, worker_uid: str, process: "Process", unused_for: float, reason: str) -> None:
        """Judge a process that agreed to go unforced: loaded, nothing open, unused for as long as was said."""
        left, unused = f"{process.pod_uid}: left for {reason}", process.idle_for()
        _hold(process.loaded, f"{left} before it was loaded")
        _hold(process.open == 0, f"{left} with {process.open} requests open")
        _hold(unused >= unused_for, f"{left}, used {unused} s ago")
        self.agreed[worker_uid] = reason

    def process_moved(self, process: "Process") -> None:
        """Judge what a process says of itself: one chain of moves of the table."""
        for move in process.machine.pong(Gauges(), 0.0).transitions:
            told = str(move.from_state), str(move.to_state)
            _hold(told[1] in MOVES[told[0]], f"{process.pod_uid}: {told[0]} → {told[1]} is not in the table")

    def look(self, workers: Iterable[WorkerView], pods: Sequence[PodView], pool: PoolView | None) -> None:
        """Judge a state as it stands: nothing runs uncharged, and who is Dead runs nothing."""
        ledger = _ledger(pool) if pool else {}
        for pod in pods:
            if pod.gated or pod.uid in self.smuggled:
                continue
            entry = ledger.get(pod.owner_uid)
            _hold(entry is not None and entry["podUID"] == pod.uid, f"{pod.name}: may run uncharged")
        for worker in workers:
            if worker.status.get("state") == "Dead":
                ran = self.lifted.get(worker.uid)
                _hold(all(pod.uid != ran for pod in pods), f"{worker.name}: is Dead and its pod runs")

    def decided(
        self, pool: PoolView, line: Sequence[WorkerView], holders: Sequence[Candidate], decided: Admission
    ) -> None:
        """Judge one look at the line: grants that fit, nobody overtaken who could have been served, just victims."""
        room = _less(_budget(pool), _total(_held(holder) for holder in holders))
        coming = _total(_held(holder) for holder in holders if str(holder.state) in ENDED)
        granted = {worker.uid for worker in decided.grants}
        told = granted | decided.refusals.keys()
        _hold(told == {worker.uid for worker in line}, "somebody in line was forgotten")
        first: WorkerView | None = None
        for worker in sorted(line, key=lambda each: (-each.spec.priority, each.created or 0, each.name)):
            need = _need(worker)
            if worker.uid in granted:
                _hold(_within(need, room), f"{worker.name}: granted {need} of {room}")
                awaited = first is not None and _within(_need(first), _plus(room, coming))
                room = _less(room, need)
                if first is not None and awaited:
                    left = _plus(room, coming)
                    _hold(_within(_need(first), left), f"{worker.name} takes what the first awaits")
            elif decided.refusals[worker.uid][0] == "WaitingForQuota" and first is None:
                _hold(not _within(need, room), f"{worker.name}: waits for {need} while {room} is free")
                self._victims(need, worker.spec.priority, _plus(room, coming), holders, decided.victims)
                first = worker
        _hold(first is not None or not decided.victims, "somebody is asked to go and nobody waits")
        self.rooms(pool, holders)

    def rooms(self, pool: PoolView, holders: Sequence[Candidate]) -> None:
        """Judge what would be decided for every size that somebody might ask for now, in GiB, with a GPU or none."""
        if sum(_willing(holder, 1) for holder in holders) < 2:
            return
        free = _less(_budget(pool), _total(map(_held, holders)))
        coming = _total(_held(holder) for holder in holders if str(holder.state) in ENDED)
        for memory, gpus, priority in product(range(1, pool.spec.memory_mib // 1024 + 1), (0, 1), (0, 1)):
            need = memory * 1024, gpus
            plan = plan_room(Amount(*need), Amount(*free), holders, priority=priority)
            self._victims(need, priority, _plus(free, coming), holders, plan.victims)

    def _victims(
        self, need: Size, priority: int, room: Size, holders: Sequence[Candidate], victims: Sequence[Candidate]
    ) -> None:
        """Judge who is asked to go; ``room`` is what is free and what is coming."""
        willing = [holder for holder in holders if _willing(holder, priority)]
        for victim in victims:
            _hold(victim in willing, f"{victim.name} is asked to go and may not be: {victim}")
        if not victims:
            hopeless = not _within(need, _plus(room, _total(map(_held, willing))))
            _hold(_within(need, room) or hopeless, f"nobody is asked to go, though it would make room for {need}")
            return
        _hold(not _within(need, room), "somebody is asked to go for room that is free or coming")
        _hold(_within(need, _plus(room, _total(map(_held, victims)))), "the victims do not make enough room")
        for others in combinations(victims, len(victims) - 1):
            _hold(not _within(need, _plus(room, _total(map(_held, others)))), "a victim is needless")


def _hold(truth: bool, otherwise: str) -> None:
    if not truth:
        raise Violation(otherwise)


def _willing(holder: Candidate, priority: int) -> bool:
    calm = holder.unused_for is not None and not holder.pending and not holder.young and not holder.pinned
    state = str(holder.state)
    rested = state == "Idle" or (state == "Ready" and (holder.unused_for or 0) >= holder.idle_timeout)
    return calm and rested and holder.priority <= priority


def _ledger(pool: PoolView) -> Mapping[str, Any]:
    return pool.status.get("ledger") or {}


def _size(entry: Mapping[str, Any]) -> Size:
    return entry["memoryMiB"], entry["gpus"]


def _budget(pool: PoolView) -> Size:
    return pool.spec.memory_mib, pool.spec.gpus


def _need(worker: WorkerView) -> Size:
    return worker.spec.memory_mib, worker.spec.gpus


def _held(holder: Candidate) -> Size:
    return holder.amount.memory_mib, holder.amount.gpus


def _total(sizes: Iterable[Size]) -> Size:
    found = list(sizes)
    return sum(size[0] for size in found), sum(size[1] for size in found)


def _plus(one: Size, other: Size) -> Size:
    return one[0] + other[0], one[1] + other[1]


def _less(one: Size, other: Size) -> Size:
    return one[0] - other[0], one[1] - other[1]


def _within(size: Size, room: Size) -> bool:
    return size[0] <= room[0] and size[1] <= room[1]
