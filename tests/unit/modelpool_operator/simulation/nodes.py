"""All that nodes, workers' processes and strangers may do in a world: a list of named steps, each possible now."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from modelpool_api import WorkerState
from modelpool_api.health import PingOutcome
from modelpool_api.pod import EXIT_CRASHED, EXIT_EVICTED, EXIT_NEVER_LOADS, EXIT_TERMINATED
from modelpool_operator.domain.podview import Container, PodView, Termination
from unit.modelpool_operator.simulation.process import Process
from unit.modelpool_operator.simulation.world import World

KILLED = 137
_SERVING = (WorkerState.READY, WorkerState.PROCESSING, WorkerState.IDLE)
#: What breaks, and what strangers do; all other steps are the ordinary course of things.
FAULTS = frozenset(
    ("bad image", "reject", "delete", "lose node", "smuggle", "never loads", "crash", "oom", "quit", "hang", "babble")
)


class Step(NamedTuple):
    """One thing that may happen: its kind, to which pod, and how."""

    kind: str
    pod: str
    happen: Callable[[World], None]


def steps(world: World) -> list[Step]:
    """Return all that may happen now, in a fixed order."""
    return [step for name in world.pods for step in _pod_steps(world, name)]


def _pod_steps(world: World, name: str) -> Iterator[Step]:
    pod = world.pods[name]
    process, box = world.processes.get(pod.uid), pod.container

    def step(kind: str, happen: Callable[[World], object]) -> Step:
        return Step(kind, name, lambda there: _happen(there, f"{kind}: {name}", happen))

    if not any(worker.uid == pod.owner_uid for worker in world.workers.values()) and not pod.deleting:
        yield step("collect", lambda there: there.remove_pod(name))
    if pod.gated:
        yield step("smuggle", lambda there: _smuggle(there, name))
    elif not pod.node and not pod.deleting:
        yield step("schedule", lambda there: there.change_pod(name, node="node-1", scheduled=True))
    if pod.node and box is None and not pod.deleting and pod.phase == "Pending":
        yield step("start", lambda there: _start(there, name))
        yield step("bad image", lambda there: there.change_pod(name, container=_never_started("InvalidImageName")))
    if pod.node and not pod.finished and not pod.deleting:
        yield step("reject", lambda there: _end(there, name, KILLED, "Evicted", phase="Failed"))
    if box is not None and not box.running and box.last is not None and not pod.finished and not pod.deleting:
        yield step("restart", lambda there: _start(there, name))
    if not pod.deleting:
        yield step("delete", lambda there: there.remove_pod(name))
    if pod.node and not pod.deleting:
        yield step("lose node", lambda there: _lose_node(there, name))
    if pod.deleting:
        yield step("gone", lambda there: there.pod_gone(name))
    if process is not None:
        yield from (step(kind, happen) for kind, happen in _process_steps(name, pod, process))


def _process_steps(name: str, pod: PodView, process: Process) -> Iterator[tuple[str, Callable[[World], object]]]:
    uid, state = pod.uid, process.state
    if state is WorkerState.LOADING:
        yield "load", lambda there: there.processes[uid].load()
        yield "never loads", lambda there: _end(there, name, EXIT_NEVER_LOADS)
    ready = state in _SERVING and process.answers is PingOutcome.OK
    if pod.ready is not ready:
        yield "probe", lambda there: _probe(there, name, ready=ready)
    if state in _SERVING:
        yield "admit", lambda there: there.processes[uid].admit()
    if process.open:
        yield "done", lambda there: there.processes[uid].done()
    if process.machine.idle_due() == 0.0:
        yield "idle", lambda there: there.processes[uid].machine.tick()
    if state is WorkerState.EVICTING:
        if not process.open:
            yield "leave", lambda there: _leave(there, name)
    elif pod.deleting:
        yield "sigterm", lambda there: there.processes[uid].machine.terminate()
    if state is not WorkerState.EVICTING or pod.deleting:
        yield "crash", lambda there: _end(there, name, EXIT_CRASHED)
        yield "oom", lambda there: _end(there, name, KILLED, "OOMKilled")
        yield "quit", lambda there: _end(there, name, EXIT_EVICTED)
    if process.answers is PingOutcome.OK:
        yield "hang", lambda there: _answers(there, uid, PingOutcome.UNREACHABLE)
        yield "babble", lambda there: _answers(there, uid, PingOutcome.GARBAGE)
    else:
        yield "heal", lambda there: _answers(there, uid, PingOutcome.OK)


def _happen(world: World, what: str, happen: Callable[[World], object]) -> None:
    world.note(what)
    happen(world)
    world.counter += 1


def _start(world: World, name: str) -> None:
    pod = world.pods[name]
    box, last = pod.container, pod.container.last if pod.container else None
    restarts = box.restarts + 1 if box is not None else 0
    running = Container(True, world.now, restarts, "", "", last)
    world.change_pod(name, container=running, phase="Running", ip="10.0.0.7")
    owner = pod.owner_uid
    timeout = next((_idle_timeout(world, worker.name) for worker in world.workers.values() if worker.uid == owner), 0.0)
    world.processes[pod.uid] = Process.started(pod.uid, owner, f"boot-{world.next()}", timeout, world.clock)


def _idle_timeout(world: World, name: str) -> float:
    own = world.workers[name].spec.idle_timeout_seconds
    return float(own if own is not None else world.pool.spec.idle_timeout_seconds if world.pool else 300)


def _leave(world: World, name: str) -> None:
    """End in order: who was evicted says for what, who was only told to stop by a signal does not."""
    machine = world.processes[world.pods[name].uid].machine
    if machine.evict_accepted:
        _end(world, name, EXIT_EVICTED, "Completed", message=machine.reason)
    else:
        _end(world, name, EXIT_TERMINATED)


def _end(world: World, name: str, code: int, reason: str = "Error", *, phase: str = "", message: str = "") -> None:
    """End the container's process, if one runs; 0 ends the pod, anything else has it started again."""
    pod = world.pods[name]
    ran = world.processes.pop(pod.uid, None) is not None
    box = pod.container
    if ran and box is not None:
        box = replace(
            box, running=False, started=None, waiting_reason="", last=Termination(code, reason, message, world.now)
        )
    phase = phase or ("Succeeded" if code == EXIT_EVICTED else pod.phase)
    world.change_pod(name, container=box, phase=phase, ready=False, reason=reason if phase == "Failed" else "")


def _never_started(why: str) -> Container:
    return Container(False, None, 0, why, "", None)


def _probe(world: World, name: str, *, ready: bool) -> None:
    """The kubelet takes notice of whether the process calls itself ready."""
    pod = world.change_pod(name, ready=ready)
    if ready:
        world.oracle.probed.add(pod.uid)


def _lose_node(world: World, name: str) -> None:
    """The node does not answer: its pods are being deleted, and nobody confirms it."""
    pod = world.change_pod(name, deleting=True, disruption="DeletionByTaintManager", ready=False)
    if pod.uid in world.processes:
        world.processes[pod.uid].answers = PingOutcome.UNREACHABLE


def _smuggle(world: World, name: str) -> None:
    """Somebody takes the gate off who is not the operator."""
    pod = world.pods[name]
    entry = world.pool.ledger.get(pod.owner_uid) if world.pool else None
    if entry is None or entry.pod_uid != pod.uid:
        world.oracle.smuggled.add(pod.uid)
    world.change_pod(name, gated=False)


def _answers(world: World, uid: str, how: PingOutcome) -> None:
    world.processes[uid].answers = how
