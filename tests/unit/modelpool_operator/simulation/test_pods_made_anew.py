"""A gated pod that was made for a worker which had one before: it never runs, and the worker's state stays true.

Found by the explorations beside this file. A worker's pod is deleted by somebody, and whoever reconciles the pool has
not heard yet that a pod was charged for that worker once.
"""

import pytest

from unit.modelpool_operator.simulation import pool_turn, settling, worker_turn
from unit.modelpool_operator.simulation.operators import Operator
from unit.modelpool_operator.simulation.test_random_histories import RULES
from unit.modelpool_operator.simulation.world import World


@pytest.fixture
def world() -> World:
    """A pool with room for one, which has a finalizer already; worker z can never run."""
    made = World(journal=[])
    made.make_pool("1Gi", **RULES)
    made.make_worker("z", memory="2Gi")
    settling.run(made, Operator())
    made.make_worker("a")
    return made


def accepted(world: World) -> Operator:
    """An operator that has accepted worker a and does no more yet."""
    operator = Operator()
    operator.look_at_all(world)
    settling.finish_worker(world, operator, "a")
    return operator


def lose_pod(world: World) -> None:
    """Somebody deletes the pod of worker a, and it is gone."""
    name = world.workers["a"].pod_name
    world.remove_pod(name)
    if name in world.pods:
        world.pod_gone(name)


def test_of_a_worker_that_is_ready_by_a_leader_that_was_frozen(world):
    frozen = accepted(world)
    settling.run(world, Operator())
    assert world.workers["a"].status["state"] == "Ready"
    lose_pod(world)
    settling.finish_pool(world, frozen)
    assert world.pods[world.workers["a"].pod_name].gated

    settling.settle(world)
    assert world.workers["a"].status["state"] == "Dead"
    assert world.pods == {}


def test_of_a_worker_that_is_spawning_by_a_leader_that_was_frozen(world):
    """The second pod is charged, and still it may not run."""
    frozen, leader = accepted(world), Operator()
    leader.look_at_all(world)
    settling.finish_pool(world, leader)
    settling.finish_worker(world, leader, "a")
    assert not world.pods[world.workers["a"].pod_name].gated
    lose_pod(world)
    leader.look_at_all(world)
    settling.finish_pool(world, leader)
    frozen.pool = world.pool
    settling.finish_pool(world, frozen)

    settling.settle(world)
    assert world.workers["a"].status["reason"] == "PodLost"


def test_of_a_worker_whose_write_was_late_by_one_and_the_same_operator(world):
    """The write that says that a pod was charged lands after that pod is gone and while another one is being made."""
    operator = accepted(world)
    settling.finish_pool(world, operator)
    late = worker_turn.begin(world, operator, "a")
    lose_pod(world)
    operator.read_pod(world, world.workers["a"].pod_name)
    settling.finish_pool(world, operator)
    made = pool_turn.begin(world, operator)
    made = pool_turn.advance(world, operator, made)
    while late is not None:
        late = worker_turn.advance(world, operator, late)
    while made is not None:
        made = pool_turn.advance(world, operator, made)

    settling.settle(world)
    assert world.workers["a"].status["reason"] == "PodLost"
