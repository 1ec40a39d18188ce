"""Whole lives of one worker, and how each of them ends, whatever happens to the operator meanwhile."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from control_plane.operator_runs.process import OperatorProcess
from control_plane.operator_runs.proxy import Proxy, running_proxy
from control_plane.operator_runs.site import Site, World, until
from modelpool_operator.api import names

BIRTH = ("Spawning", "Loading", "Ready")
#: Seconds that a life may take once the faults are over.
PATIENCE = 60.0


@dataclass(frozen=True)
class Life:
    """A worker from its creation to Dead, that needs nobody but the operator to go through it."""

    reason: str
    states: tuple[str, ...]
    source: str = "file:///serve"
    worker: dict[str, Any] = field(default_factory=dict)
    pool: dict[str, Any] = field(default_factory=dict)

    def begin(self, world: World) -> None:
        world.pool(**self.pool)
        world.worker(source=self.source, **self.worker)

    def over(self, world: World) -> bool:
        return world.status().get("state") == "Dead" and world.settled()

    def ends(self, world: World, seconds: float = PATIENCE, *, late_creations: bool = False) -> None:
        """Wait for the end, and judge it: the same story, one pod, one reservation, nothing lost or left.

        With ``late_creations`` a pod more may have been made, as a leader does that wakes after all is over: nothing
        speaks against a create but the name. Such a pod is never let go to the scheduler, and is gone again.
        """
        until(lambda: self.over(world), f"the end of {self.reason}", seconds)
        status, pool = world.status(), world.pool_status()
        assert status["reason"] == self.reason
        assert status["message"]
        assert world.states() == list(self.states), status
        assert [entry["to"] for entry in status["transitions"]] == list(self.states[1:])
        assert world.recorder.reserved(world.namespace) in ([0, 1024, 0], [1024, 0])
        assert len(_pods(world, let_go=True)) == 1
        assert late_creations or len(_pods(world)) == 1
        assert pool["evicted"] == {self.reason: 1}
        assert pool.get("ledgerRepairs", 0) == 0
        world.check()


#: Born, served, unused, evicted for it.
IDLE = Life(
    "IdleEviction",
    (*BIRTH, "Idle", "Evicting", "Dead"),
    pool={"idleTimeoutSeconds": 1, "evictAfterSeconds": 2},
)
#: Cannot load, gives its room back, is kept for a second.
FAILED = Life("ModelLoadFailed", ("Spawning", "Loading", "Failed", "Dead"), source="file:///never")


@contextmanager
def stage(site: Site, folder: Path, **settings: str) -> Iterator[tuple[World, Proxy, OperatorProcess]]:
    """A namespace with an operator of its own, not yet started, behind a proxy of its own."""
    folder.mkdir(parents=True)
    world = site.world()
    with ExitStack() as stack:
        proxy = stack.enter_context(running_proxy(site.cluster, folder))
        given = {"LEASE_NAME": world.namespace, **settings}
        operator = OperatorProcess(folder, proxy.kubeconfig, [world.namespace], **given)
        stack.callback(operator.kill)
        yield world, proxy, operator


def all_were_reached(struck: list[int], tried: int) -> None:
    """Every write that each life has was the one that something happened at.

    On a busy machine some lives do with fewer writes than others, since news that come together are told by one write:
    those of the last quarter need not be met by each.
    """
    assert max(struck) < tried, f"a life has {tried} writes or more: try more"
    assert set(range(1, max(struck) * 3 // 4 + 1)) <= set(struck), f"not each was reached: {struck}"


def _pods(world: World, *, let_go: bool = False) -> set[str]:
    """The uids of all pods that ever were, or of those that the scheduler could have."""
    seen = [each.obj for each in world.recorder.of(world.namespace, "pod")]
    return {pod["metadata"]["uid"] for pod in seen if not let_go or not pod["spec"].get("schedulingGates")}


def pods_of(world: World, worker_uid: str) -> set[str]:
    """The uids of all pods that a worker ever had."""
    seen = [each.obj["metadata"] for each in world.recorder.of(world.namespace, "pod")]
    return {meta["uid"] for meta in seen if (meta.get("labels") or {}).get(names.LABEL_WORKER_UID) == worker_uid}
