"""The operator killed after any of its writes, before it hears the answer: what it began, its successor finishes.

Every run ends the same: one pod, one reservation, the same story, or nothing at all once the worker has gone.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from control_plane.operator_runs.process import OperatorProcess
from control_plane.operator_runs.proxy import Proxy, running_proxy
from control_plane.operator_runs.site import Site, World, until

pytestmark = pytest.mark.control_plane

#: Operators at work at the same time.
ABREAST = 3
#: Writes of a birth and of an eviction, Events and Leases apart.
BIRTH, EVICTION = 16, 6


@contextmanager
def stage(site: Site, folder: Path) -> Iterator[tuple[World, Proxy, OperatorProcess]]:
    """A namespace with an operator of its own behind a proxy of its own."""
    folder.mkdir()
    world = site.world()
    with ExitStack() as stack:
        proxy = stack.enter_context(running_proxy(site.cluster, folder))
        operator = OperatorProcess(folder, proxy.kubeconfig, [world.namespace], LEASE_NAME=world.namespace)
        stack.callback(operator.kill)
        yield world, proxy, operator


def born(world: World) -> bool:
    status = world.status()
    return status.get("state") == "Ready" and bool(status.get("endpoint"))


def gone(world: World) -> bool:
    return world.status().get("state") == "Dead" and world.settled()


def killed_once(world: World, operator: OperatorProcess, end: Callable[[World], bool]) -> bool:
    """Wait for the end, with a successor where the operator was killed; return whether it was."""
    until(lambda: not operator.running or end(world), "killed, or done without", 60)
    if operator.running:
        return False
    operator.start()
    until(lambda: end(world), f"the end after the kill (states: {world.states()})", 60)
    return True


def a_birth(site: Site, folder: Path, after: int) -> bool:
    """A worker's birth, with the operator killed after so many writes."""
    with stage(site, folder) as (world, proxy, operator):
        world.pool()
        made = world.worker()
        proxy.strike_after(after, operator.kill)
        operator.start()
        killed = killed_once(world, operator, born)
        assert len(world.pods()) == 1
        assert list(world.ledger()) == [made["metadata"]["uid"]]
        assert world.states() == ["Spawning", "Loading", "Ready"]
        assert world.recorder.reserved(world.namespace) in ([0, 1024], [1024])
        _spotless(world, operator)
        return killed


def an_eviction(site: Site, folder: Path, after: int) -> bool:
    """A worker's shutdown, with the operator killed after so many writes."""
    with stage(site, folder) as (world, proxy, operator):
        world.pool()
        world.worker()
        operator.start()
        until(lambda: born(world), "the birth", 60)
        proxy.strike_after(after, operator.kill)
        world.patch("w", {"shutdown": True})
        killed = killed_once(world, operator, gone)
        assert world.status()["reason"] == "Shutdown"
        assert world.states() == ["Spawning", "Loading", "Ready", "Evicting", "Dead"]
        assert world.recorder.reserved(world.namespace)[-2:] == [1024, 0]
        assert world.pool_status()["evicted"] == {"Shutdown": 1}
        _spotless(world, operator)
        return killed


def _spotless(world: World, operator: OperatorProcess) -> None:
    assert world.pool_status().get("ledgerRepairs", 0) == 0
    world.check()
    operator.assert_clean()


@pytest.mark.parametrize(("life", "writes"), [(a_birth, BIRTH), (an_eviction, EVICTION)], ids=["birth", "eviction"])
def test_killed_after_any_write_the_end_is_the_same(
    site: Site, tmp_path: Path, life: Callable[[Site, Path, int], bool], writes: int
) -> None:
    with ThreadPoolExecutor(ABREAST) as pool:
        runs = [pool.submit(life, site, tmp_path / str(number), number) for number in range(1, writes + 1)]
        problems = {number: run.exception() for number, run in enumerate(runs, 1)}
    assert not {number: problem for number, problem in problems.items() if problem is not None}
    # a life may do with fewer writes than usual; the others were cut as they should
    assert sum(run.result() for run in runs) >= writes - 2
