"""An operator without I/O: what it remembers, and reconciles cut into single requests.

It carries plans out as ``runtime/workers.py`` and ``runtime/pools.py`` do, one request per ``advance``. Between two of
them anything may happen: the world moves on, another operator writes, or this one is no more.
"""

from dataclasses import dataclass, field, replace

from modelpool_api import FLIP_STATES, EvictRequest, Pong, WorkerState
from modelpool_api.health import NO_PINGS, HealthRecord, PingOutcome
from modelpool_operator.api.names import Reason
from modelpool_operator.domain.objects import PoolView, WorkerView
from modelpool_operator.domain.plan import AskEvict
from modelpool_operator.domain.podview import PodView
from modelpool_operator.domain.seen import Seen
from unit.modelpool_operator.simulation.world import World


@dataclass
class Operator:
    """What one operator believes. Losing it loses nothing; a view of it may be any older version of the truth."""

    workers: dict[str, WorkerView] = field(default_factory=dict)
    pods: dict[str, PodView] = field(default_factory=dict)
    pool: PoolView | None = None
    pongs: dict[str, Pong] = field(default_factory=dict)
    heard: dict[str, float] = field(default_factory=dict)
    health: dict[str, HealthRecord] = field(default_factory=dict)
    quota: dict[str, tuple[Reason, str]] = field(default_factory=dict)
    room_wanted: dict[str, Reason] = field(default_factory=dict)
    deaf: frozenset[str] = frozenset()
    service_made: frozenset[str] = frozenset()
    watched: frozenset[str] = frozenset()
    #: whether the write budget allows flips of load now
    may_flip: bool = True
    #: whether what only people read is written, too; without it a world has fewer states
    tells: bool = True

    def copy(self) -> "Operator":
        """Return one that believes the same."""
        tables = (self.pongs, self.heard, self.health, self.quota, self.room_wanted)
        return Operator(
            dict(self.workers),
            dict(self.pods),
            self.pool,
            *(dict(table) for table in tables),  # type: ignore[arg-type]
            self.deaf,
            self.service_made,
            self.watched,
            self.may_flip,
            self.tells,
        )

    def pod_of(self, worker: WorkerView) -> PodView | None:
        """Return the worker's pod as last seen."""
        pod = self.pods.get(worker.pod_name)
        return pod if pod is not None and pod.owner_uid == worker.uid else None

    def pong_now(self, uid: str, seconds: float) -> Pong | None:
        """Return the last pong, its idle time carried on to now."""
        pong = self.pongs.get(uid)
        if pong is None or pong.unused_for is None or pong.pending_requests or seconds == self.heard[uid]:
            return pong
        return pong.model_copy(update={"unused_for": pong.unused_for + seconds - self.heard[uid]})

    def see(self, worker: WorkerView, world: World) -> Seen:
        """Put together what a decision may depend on."""
        record = self.health.get(worker.uid, NO_PINGS)
        return Seen(
            worker=worker,
            pool=self.pool,
            quota=self.quota.get(worker.uid),
            pod=self.pod_of(worker),
            pong=self.pong_now(worker.uid, world.clock.seconds),
            health=record,
            cut_off=record.misses > 0 and self.cut_off(),
            room_wanted=self.room_wanted.get(worker.uid),
            deaf=worker.uid in self.deaf,
            service_made=worker.uid in self.service_made,
        )

    def cut_off(self) -> bool:
        """Whether three workers and half of all do not answer though the kubelet calls them ready."""
        serving = [each for each in self.workers.values() if each.state in FLIP_STATES and each.uid in self.health]
        silent = 0
        for worker in serving:
            pod = self.pod_of(worker)
            unreachable = self.health[worker.uid].last_outcome is PingOutcome.UNREACHABLE
            silent += unreachable and pod is not None and pod.ready
        return silent >= 3 and 2 * silent >= len(serving)

    def look_at(self, world: World, name: str) -> None:
        """Take one worker, its pod and the pool as they are now."""
        self.read_worker(world, name)
        if name in self.workers:
            self.read_pod(world, self.workers[name].pod_name)
        self.pool = world.pool

    def look_at_all(self, world: World) -> None:
        """Take everything as it is now: a sweep."""
        for name in [*self.workers, *world.workers]:
            self.read_worker(world, name)
        self.pods, self.pool = dict(world.pods), world.pool

    def read_worker(self, world: World, name: str) -> None:
        """Take one worker as it is now; what is kept for one that is gone is dropped."""
        here, known = world.workers.get(name), self.workers.get(name)
        if known is not None and (here is None or here.uid != known.uid):
            del self.workers[name]
            self.unwatch(known.uid)
            self.quota.pop(known.uid, None)
            self.room_wanted.pop(known.uid, None)
            self.deaf -= {known.uid}
            self.service_made -= {known.uid}
        if here is not None:
            self.workers[name] = here

    def read_pod(self, world: World, pod_name: str) -> PodView | None:
        """Take one pod as it is now."""
        pod = world.pods.get(pod_name)
        if pod is None:
            self.pods.pop(pod_name, None)
        else:
            self.pods[pod_name] = pod
        return pod

    def watch_process(self, worker: WorkerView) -> None:
        """Ping a worker while a process of its runs; stop when it has ended."""
        pod = self.pod_of(worker)
        alive = worker.state in FLIP_STATES or worker.state is WorkerState.LOADING
        answers = self.health.get(worker.uid, NO_PINGS).misses == 0 and worker.uid in self.pongs
        running = pod is not None and pod.container is not None and pod.container.running
        if running and (alive or (worker.state is WorkerState.EVICTING and answers)):
            self.watched |= {worker.uid}
        else:
            self.unwatch(worker.uid)

    def unwatch(self, uid: str) -> None:
        """Stop pinging; what the process said last counts no more."""
        self.watched -= {uid}
        for table in (self.pongs, self.heard, self.health):
            table.pop(uid, None)

    def ping(self, world: World, worker: WorkerView) -> None:
        """Ask a worker that is watched how it is."""
        pod = self.pod_of(worker)
        process = world.processes.get(pod.uid) if pod else None
        outcome, pong = process.ping() if process else (PingOutcome.UNREACHABLE, None)
        if process is not None:
            world.oracle.process_moved(process)
        self.hear(worker.uid, outcome, pong, world.clock.seconds)

    def ask_to_go(self, world: World, worker: WorkerView, ask: AskEvict, *, lost: bool) -> bool:
        """Carry the question to the process; ``lost``: its answer does not come back."""
        pod, pong = self.pod_of(worker), self.pongs.get(worker.uid)
        if worker.uid not in self.watched or pong is None or pod is None:
            return False
        process = world.processes.get(pod.uid)
        request = EvictRequest(
            worker_id=worker.uid,
            boot_id=pong.boot_id,
            unused_for=ask.unused_for,
            force=ask.force,
            reason=str(ask.reason),
        )
        agreed, before = False, process.state if process else None
        if process is not None:
            agreed = process.evict(request)
            if agreed and not ask.force and before is not WorkerState.EVICTING:
                world.oracle.agreed_to_go(worker.uid, process, ask.unused_for, request.reason)
            world.counter += before is not process.state
        world.note(f"{worker.name} is asked to go, {request.reason}: {agreed}{', the answer is lost' if lost else ''}")
        answer = process.ping() if process and not lost else (PingOutcome.UNREACHABLE, None)
        self.hear(worker.uid, *answer, world.clock.seconds)
        return agreed and not lost

    def hear(self, uid: str, outcome: PingOutcome, pong: Pong | None, seconds: float) -> None:
        """Take the answer to a ping, or that there was none."""
        known = self.pongs.get(uid)
        self.health[uid] = self.health.get(uid, NO_PINGS).after(outcome, pong.boot_id if pong else None)
        if outcome is PingOutcome.UNREACHABLE and self.cut_off():
            self.health[uid] = replace(self.health[uid], misses=1)
        overtaken = known and pong and known.boot_id == pong.boot_id and pong.seq < known.seq
        if pong is not None and not overtaken:
            self.pongs[uid], self.heard[uid] = pong, seconds
