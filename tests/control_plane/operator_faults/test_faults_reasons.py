"""All that can happen to a worker's pod, each with a reason of its own and a sentence that says what is the case."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from control_plane.operator_runs.kubelet import BROKEN, NODE
from control_plane.operator_runs.lives import BIRTH
from control_plane.operator_runs.site import Site, World, until
from modelpool_operator.api import names

pytestmark = [pytest.mark.control_plane, pytest.mark.usefixtures("operator")]

Do = Callable[[Site, World], None]


def nothing(site: Site, world: World) -> None:
    """It comes by itself."""


def hangs(site: Site, world: World) -> None:
    """Whoever asks is let in and never answered."""

    async def silence(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    world.reaches("Ready")
    world.played().instead = silence


def answers_garbage(site: Site, world: World) -> None:
    async def garbage(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"<html>It works!</html>"})

    world.reaches("Ready")
    world.played().instead = garbage


def is_up_but_does_not_work(site: Site, world: World) -> None:
    """The port listens and the pod is ready, but every question ends in an error."""

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    world.reaches("Ready")
    world.played().instead = broken


def listens_no_more(site: Site, world: World) -> None:
    world.reaches("Ready")
    world.hang_up()


def leaves(site: Site, world: World) -> None:
    world.reaches("Ready")
    world.crash(exit_code=0)


def is_deleted(site: Site, world: World) -> None:
    world.reaches("Ready")
    world.core.delete_namespaced_pod(world.pods()[0].metadata.name, world.namespace)


def vanishes(site: Site, world: World) -> None:
    world.reaches("Ready")
    world.core.delete_namespaced_pod(world.pods()[0].metadata.name, world.namespace, grace_period_seconds=0)


def vanishes_while_it_loads(site: Site, world: World) -> None:
    world.reaches("Loading")
    world.core.delete_namespaced_pod(world.pods()[0].metadata.name, world.namespace, grace_period_seconds=0)


def is_given_up(phase_reason: str, message: str, disruption: str = "") -> Do:
    """Write what a kubelet, or the collector of pods without a node, writes into the status of a pod it gives up."""

    def give_up(site: Site, world: World) -> None:
        world.reaches("Ready")
        pod = world.pods()[0].metadata
        world.kubelet.let_go.add(pod.uid)
        status: dict[str, Any] = {"phase": "Failed", "reason": phase_reason, "message": message}
        if disruption:
            target = {"type": "DisruptionTarget", "status": "True", "reason": disruption}
            status["conditions"] = [target, {"type": "Ready", "status": "False"}]
        world.core.patch_namespaced_pod_status(pod.name, world.namespace, {"status": status})

    return give_up


def loses_its_node(site: Site, world: World) -> None:
    """The node does not answer, and the taint manager deletes its pods: they stay Terminating, and charged."""
    world.reaches("Ready")
    node = world.status()["nodeName"]
    assert node != NODE
    world.kubelet.await_on_loop(lambda: world.kubelet.lose_node(node))
    taint = {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}
    world.core.patch_node(node, {"spec": {"taints": [taint]}})
    world.reaches("Evicting")
    assert len(world.ledger()) == 1
    world.core.delete_node(node)
    world.core.delete_namespaced_pod(world.pods()[0].metadata.name, world.namespace, grace_period_seconds=0)


@dataclass(frozen=True)
class Row:
    reason: names.Reason
    says: str
    states: tuple[str, ...]
    source: str = "file:///serve"
    pool: dict[str, Any] = field(default_factory=dict)
    do: Do = nothing
    own_node: bool = False
    exit_code: int | None = None

    def run(self, site: Site) -> None:
        """Live it; once more where the operator looked between the two writes of a forced deletion.

        The API server marks the pod as going before it removes it: who sees the mark rightly says PodTerminating.
        """
        assert any(self.once(site) for _ in range(6)), "the mark was seen every time"

    def once(self, site: Site) -> bool:
        world = site.world()
        rules = dict(self.pool)
        if self.own_node:
            node = f"node-{uuid.uuid4().hex[:8]}"
            world.kubelet.await_on_loop(lambda: world.kubelet.add_node(node))
            rules |= {"nodeSelector": {"own": node}, "tolerations": [{"key": "own", "operator": "Exists"}]}
        world.open_pool(**rules)
        world.worker(source=self.source)
        self.do(site, world)
        status = world.reaches("Dead", seconds=60)
        if self.do in (vanishes, vanishes_while_it_loads) and status["reason"] == R.POD_TERMINATING:
            return False
        assert status["reason"] == self.reason
        assert self.says in status["message"], status["message"]
        assert world.states() == list(self.states)
        assert status.get("lastFailure", {}).get("exitCode") == self.exit_code
        assert world.recorder.reserved(world.namespace) == [0, 1024, 0]
        assert world.pool_status()["evicted"] == {self.reason: 1}
        until(world.settled, "all is given back")
        assert world.pool_status().get("ledgerRepairs", 0) == 0
        seen = {each.obj["metadata"]["uid"] for each in world.recorder.of(world.namespace, "pod")}
        assert len(seen) == 1
        world.check()
        return True


NEVER_RAN = ("Spawning", "Failed", "Dead")
NEVER_READY = ("Spawning", "Loading", "Failed", "Dead")
SENT_AWAY = (*BIRTH, "Evicting", "Dead")
R = names.Reason
SOON = {"scheduleDeadlineSeconds": 2}

ROWS = {
    "model-load-failed": Row(R.MODEL_LOAD_FAILED, BROKEN, NEVER_READY, "file:///never", exit_code=78),
    "crash-loop": Row(R.CRASH_LOOP, BROKEN, NEVER_READY, "file:///crash", {"restartLimit": 2}, exit_code=1),
    "oom-loop": Row(R.OOM_KILLED, "more memory", NEVER_READY, "file:///oom", {"restartLimit": 2}, exit_code=137),
    "image-never-comes": Row(R.IMAGE_PULL, "not found", NEVER_RAN, "file:///no-image", SOON),
    "secret-missing": Row(R.CONFIG, 'secret "hub-token" not found', NEVER_RAN, "file:///no-secret", SOON),
    "volume-never-mounts": Row(R.SCHEDULE_DEADLINE, "volumes", NEVER_RAN, "file:///stuck", SOON),
    "no-node-takes-it": Row(
        R.UNSCHEDULABLE, "no node takes the pod", NEVER_RAN, pool={**SOON, "nodeSelector": {"planet": "mars"}}
    ),
    "load-never-ends": Row(
        R.LOAD_DEADLINE, "load deadline of 2 s", NEVER_READY, "file:///slow", {"loadDeadlineSeconds": 2}
    ),
    "never-ready-to-the-kubelet": Row(
        R.LOAD_DEADLINE, "load deadline of 2 s", NEVER_READY, "file:///unready", {"loadDeadlineSeconds": 2}
    ),
    "hangs": Row(R.HEALTH_CHECK, "pings in a row failed, the last one: Unreachable", SENT_AWAY, do=hangs),
    "answers-garbage": Row(
        R.HEALTH_CHECK, "pings in a row failed, the last one: Garbage", SENT_AWAY, do=answers_garbage
    ),
    "up-but-does-not-work": Row(
        R.HEALTH_CHECK, "pings in a row failed, the last one: Garbage", SENT_AWAY, do=is_up_but_does_not_work
    ),
    "listens-no-more": Row(
        R.HEALTH_CHECK, "pings in a row failed, the last one: Unreachable", SENT_AWAY, do=listens_no_more
    ),
    "pod-lost": Row(R.POD_LOST, "the pod is gone", (*BIRTH, "Dead"), do=vanishes),
    "pod-lost-while-loading": Row(
        R.POD_LOST, "before it was ready", NEVER_READY, "file:///slow", do=vanishes_while_it_loads
    ),
    "pod-deleted-by-somebody": Row(R.POD_TERMINATING, "the pod is gone", SENT_AWAY, do=is_deleted),
    "pod-rejected": Row(
        R.POD_REJECTED,
        "low on resource: memory",
        SENT_AWAY,
        do=is_given_up("Evicted", "the node was low on resource: memory", "TerminationByKubelet"),
    ),
    "node-lost": Row(R.NODE_LOST, "does not answer", SENT_AWAY, do=loses_its_node, own_node=True),
    "node-deleted": Row(
        R.NODE_LOST, "is gone", SENT_AWAY, do=is_given_up("", "PodGC: node no longer exists", "DeletionByPodGC")
    ),
    "exited-unexpectedly": Row(R.EXITED_UNEXPECTEDLY, "exit code 0", SENT_AWAY, do=leaves, exit_code=0),
}


@pytest.fixture(scope="module")
def runs(site, operator, abreast):
    assert operator.running

    def job(row: Row) -> Callable[[Path], object]:
        return lambda _: row.run(site)

    return abreast({name: job(row) for name, row in ROWS.items()})


@pytest.mark.parametrize("row", ROWS)
def test_each_end_has_its_reason_and_its_sentence(runs, row):
    runs(row)


def test_every_failure_that_is_named_has_its_row():
    failing = {R.MODEL_LOAD_FAILED, R.CRASH_LOOP, R.OOM_KILLED, R.IMAGE_PULL, R.UNSCHEDULABLE, R.LOAD_DEADLINE}
    leaving = {R.HEALTH_CHECK, R.POD_LOST, R.NODE_LOST, R.EXITED_UNEXPECTEDLY, R.CONFIG}
    assert failing | leaving <= {row.reason for row in ROWS.values()}
