"""The operator killed after any of its writes, before it hears the answer: what it began, its successor finishes.

Every run ends the same: one pod, one reservation, the same story, or nothing at all once the worker has gone.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from control_plane.operator_runs.lives import FAILED, IDLE, Life, all_were_reached, stage
from control_plane.operator_runs.process import OperatorProcess
from control_plane.operator_runs.site import Site, World, until

pytestmark = pytest.mark.control_plane

#: Operators at work at the same time.
ABREAST = 3
#: Usual writes of each life, of a shutdown and of a Model's coming to serve, Events and Leases apart, and some more.
WRITES = {"idle": 24, "failed": 22, "shutdown": 8, "model": 22}


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
    until(lambda: end(world), "the end after the kill", 60)
    return True


def a_life(life: Life, site: Site, folder: Path, after: int) -> bool:
    """A worker's whole life, with the operator killed after so many writes."""
    with stage(site, folder) as (world, proxy, operator):
        life.begin(world)
        proxy.strike_after(after, operator.kill)
        operator.start()
        killed = killed_once(world, operator, life.over)
        life.ends(world)
        operator.assert_clean()
        return killed


def a_shutdown(site: Site, folder: Path, after: int) -> bool:
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


def serves(world: World) -> bool:
    status = world.model_status()
    return world.model_ready() == ("True", "WorkersReady") and (status["replicas"], status["serial"]) == (1, 1)


def a_model(site: Site, folder: Path, after: int) -> bool:
    """A Model gets the worker that it wants, one and no more, with the operator killed after so many writes."""
    with stage(site, folder) as (world, proxy, operator):
        world.pool()
        world.model(replicas=1)
        proxy.strike_after(after, operator.kill)
        operator.start()
        killed = killed_once(world, operator, serves)
        assert world.worker_names() == ["m-1"]
        assert world.states("m-1") == ["Spawning", "Loading", "Ready"]
        assert world.recorder.reserved(world.namespace)[-2:] == [0, 1024]
        _spotless(world, operator)
        return killed


def _spotless(world: World, operator: OperatorProcess) -> None:
    assert world.pool_status().get("ledgerRepairs", 0) == 0
    world.check()
    operator.assert_clean()


LIVES: dict[str, Callable[[Site, Path, int], bool]] = {
    "idle": partial(a_life, IDLE),
    "failed": partial(a_life, FAILED),
    "shutdown": a_shutdown,
    "model": a_model,
}


@pytest.mark.parametrize("life", LIVES)
def test_killed_after_any_write_the_end_is_the_same(site: Site, tmp_path: Path, life: str) -> None:
    numbers = range(1, WRITES[life] + 1)
    with ThreadPoolExecutor(ABREAST) as pool:
        runs = {number: pool.submit(LIVES[life], site, tmp_path / str(number), number) for number in numbers}
        problems = {number: run.exception() for number, run in runs.items()}
    assert not {number: problem for number, problem in problems.items() if problem is not None}
    all_were_reached([number for number, run in runs.items() if run.result()], WRITES[life])
