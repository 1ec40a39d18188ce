"""Two operators that both believe to lead, and the Lease that keeps it from happening."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from kubernetes import client
from kubernetes.aio import client as aio
from kubernetes.aio import config

from control_plane.operator_runs.process import HOME, OperatorProcess
from control_plane.operator_runs.site import Site, World, until
from modelpool_operator.kube.client import KubeClient
from modelpool_operator.runtime.leader import Elector

pytestmark = pytest.mark.control_plane

NAMES = [f"w{number}" for number in range(6)]


@contextmanager
def two_leaders(site: Site, world: World, folder: Path) -> Iterator[None]:
    """Two operators that lead at the same time; at the end both logs must be clean.

    Each has a Lease of its own, so nothing but the preconditions of their writes holds them apart.
    """
    both: list[OperatorProcess] = []
    with ExitStack() as stack:
        for name in ("a", "b"):
            (folder / name).mkdir()
            given = {"LEASE_NAME": f"{world.namespace}-{name}", "POD_NAME": name}
            operator = OperatorProcess(folder / name, site.cluster.kubeconfig, [world.namespace], **given)
            both.append(stack.enter_context(operator))
        for each in both:
            until(lambda each=each: "lease.taken" in each.log.read_text(), "both lead")
        yield
    for each in both:
        each.assert_clean()


def test_two_leaders_at_once_grant_no_more_than_the_budget_and_make_one_pod_each(site, world, tmp_path):
    with two_leaders(site, world, tmp_path):
        world.pool(memory="4Gi")
        for name in NAMES:
            world.worker(name)
        until(lambda: len(world.ledger()) == 4, "four reservations", 40)
        served = [entry["name"] for entry in world.ledger().values()]
        for name in served:
            world.reaches("Ready", name, 40)
        for name in NAMES:
            world.patch(name, {"shutdown": True})
        for name in NAMES:
            assert world.reaches("Dead", name, 40)["reason"] == "Shutdown"
        until(world.settled, "all is given back")
    assert max(world.recorder.reserved(world.namespace)) == 4096
    assert world.pool_status().get("ledgerRepairs", 0) == 0
    assert world.pool_status()["evicted"] == {"Shutdown": 4}
    world.check()


def test_two_leaders_at_once_make_a_model_one_worker_for_each_that_it_wants(site, world, tmp_path):
    """Both see the same demand, and both make what is missing: the names are the same."""
    with two_leaders(site, world, tmp_path):
        world.pool()
        for number in range(4):
            world.model(f"m{number}", replicas=2, maxReplicas=2)
        made = [f"m{number}-{which}" for number in range(4) for which in (1, 2)]
        for name in made:
            world.reaches("Ready", name, 60)
        assert world.worker_names() == sorted(made)
        for number in range(4):
            until(lambda number=number: world.model_status(f"m{number}").get("replicas") == 2, "it is told")
    world.check()


def test_an_operator_that_is_stopped_gives_its_lease_up_at_once(site, world, tmp_path):
    lease = f"{world.namespace}-lease"
    coordination = client.CoordinationV1Api(site.api)
    with OperatorProcess(tmp_path, site.cluster.kubeconfig, [world.namespace], LEASE_NAME=lease) as operator:
        world.pool()
        world.worker()
        world.reaches("Ready")
        began = time.monotonic()
        operator.stop()
        took = time.monotonic() - began
    assert coordination.read_namespaced_lease(lease, HOME).spec.holder_identity in ("", None)
    assert took < 4, f"it took {took:.1f} s"
    assert len(world.pods()) == 1
    operator.assert_clean()


def test_a_standby_takes_over_when_the_leader_is_lost_and_finishes_what_it_began(site, world, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    kubeconfig, where, lease = site.cluster.kubeconfig, [world.namespace], f"{world.namespace}-lease"
    with (
        OperatorProcess(tmp_path / "a", kubeconfig, where, LEASE_NAME=lease, POD_NAME="a") as first,
        OperatorProcess(tmp_path / "b", kubeconfig, where, LEASE_NAME=lease, POD_NAME="b") as second,
    ):
        until(lambda: "lease.taken" in first.log.read_text() + second.log.read_text(), "one leads")
        leads = first if "lease.taken" in first.log.read_text() else second
        standby = second if leads is first else first
        world.pool()
        world.worker()
        world.reaches("Ready")
        assert "lease.taken" not in standby.log.read_text()
        world.patch("w", {"shutdown": True})
        leads.kill()
        assert world.reaches("Dead", seconds=40)["reason"] == "Shutdown"
        assert world.settled()
    world.check()


async def connected(site):
    configuration = aio.Configuration()
    await config.load_kube_config(str(site.cluster.kubeconfig), client_configuration=configuration)
    return KubeClient(aio.ApiClient(configuration))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_lease_is_judged_by_what_was_observed_and_never_by_what_is_written_in_it(site, world):
    """Two electors on a real Lease, each with a clock that only the test moves."""

    async def run() -> None:
        kube = await connected(site)
        a_clock, b_clock = Clock(), Clock()
        a = Elector(kube, HOME, f"{world.namespace}-l", "a", 10.0, monotonic=a_clock)
        b = Elector(kube, HOME, f"{world.namespace}-l", "b", 10.0, monotonic=b_clock)
        try:
            await a.attempt()
            await b.attempt()
            assert (a.is_leader, b.is_leader) == (True, False)

            # renewed in time: the standby's wait begins anew with every change that it sees
            for _ in range(3):
                a_clock.now += 7.0
                b_clock.now += 7.0
                assert a.is_leader
                await a.attempt()
                await b.attempt()
                assert (a.is_leader, b.is_leader) == (True, False)

            # not renewed: the leader steps back by itself before anybody may follow
            a_clock.now += 8.0
            b_clock.now += 9.9
            await b.attempt()
            assert (a.is_leader, b.is_leader) == (False, False)
            b_clock.now += 0.2
            await b.attempt()
            assert (a.is_leader, b.is_leader) == (False, True)

            # the old leader wakes up: its next attempt tells it
            await a.attempt()
            assert (a.is_leader, b.is_leader) == (False, True)

            # given up: no waiting
            await b.release()
            await a.attempt()
            assert (a.is_leader, b.is_leader) == (True, False)
        finally:
            await kube.close()

    asyncio.run(run())


def test_of_two_that_try_in_the_same_instant_one_gets_the_lease(site, world):
    async def run() -> list[bool]:
        kube = await connected(site)
        electors = [Elector(kube, HOME, f"{world.namespace}-race", f"e{number}", 10.0) for number in range(8)]
        try:
            await asyncio.gather(*(elector.attempt() for elector in electors))
            return [elector.is_leader for elector in electors]
        finally:
            await kube.close()

    assert sum(asyncio.run(run())) == 1
