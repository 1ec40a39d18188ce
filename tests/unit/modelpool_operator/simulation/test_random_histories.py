"""Random histories of up to five workers, one pool and two operators that are late, crash and meet each other.

After every step the world is judged by the oracle, and at the end of every history faults stop and all must settle.
A failure prints the seed and the blob that bring it back; ``SIMULATION_EXAMPLES`` asks for more histories.
"""

import os
import secrets
from typing import ClassVar, Final

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from unit.modelpool_operator.simulation import nodes, pool_turn, settling, worker_turn
from unit.modelpool_operator.simulation.operators import Operator
from unit.modelpool_operator.simulation.pool_turn import PoolTurn
from unit.modelpool_operator.simulation.world import World

EXAMPLES: Final = int(os.environ.get("SIMULATION_EXAMPLES", "120"))
SEED: Final = int(os.environ.get("SIMULATION_SEED", "0")) or secrets.randbelow(2**32)
STEPS: Final = 120
NAMES: Final = ("a", "b", "c", "d", "e")
#: Short times, so that every one of them passes within a history.
RULES: Final = {
    "idleTimeoutSeconds": 10,
    "evictAfterSeconds": 40,
    "minResidencySeconds": 15,
    "loadDeadlineSeconds": 60,
    "scheduleDeadlineSeconds": 60,
    "drainTimeoutSeconds": 5,
    "restartLimit": 1,
    "restartWindowSeconds": 30,
    "failedRetentionSeconds": 20,
    "healthCheck": {"periodSeconds": 2, "timeoutSeconds": 1, "failureThreshold": 2},
}
MEMORY: Final = ("1Gi", "1Gi", "2Gi", "3Gi")
BUDGETS: Final = ("4Gi", "6Gi", "2Gi", "5Gi")
PAUSES: Final = (1.0, 6.0, 11.0, 16.0, 16.0, 41.0, 61.0)
TOGETHER: Final = (("schedule", "start"), ("load", "probe"), ("admit",), ("done",), ("idle",), ("restart",))

SPECS: Final = [
    {"memory": memory, "gpus": gpus, "priority": priority, "eviction": eviction}
    for memory in MEMORY
    for eviction in ("Auto", "Auto", "Auto", "Never")
    for priority in (0, 0, 1)
    for gpus in (0, 0, 1)
]
POLICIES: Final = ("None", "None", "None", "None", "Hold", "HoldAndDrain")
#: What may happen next, the likelier the more often it stands here.
ACTS: Final = (
    *["turn"] * 12,
    *["watch"] * 4,
    *["work"] * 3,
    *["live"] * 8,
    *["go on"] * 6,
    *["fail"] * 3,
    *["create"] * 3,
    *["wait"] * 4,
    *["calm"] * 3,
    *["thaw"] * 3,
    *["change", "resize", "sweep", "budget", "crash"],
)
PICK: Final = st.integers(0, 4999)


class Histories(RuleBasedStateMachine):
    """One rule for all that may happen: of several, hypothesis leaves some out, and then no history comes far."""

    #: the journal of the latest history: when one has failed, that of its shortest form
    told: ClassVar[list[str]] = []

    def __init__(self) -> None:
        super().__init__()
        self.world = World(journal=[])
        Histories.told = self.world.journal
        self.operators = [Operator(), Operator()]
        #: reconciles in the middle, by operator and worker's name, "" for the pool
        self.turns: dict[tuple[int, str], worker_turn.WorkerTurn | PoolTurn] = {}

    @initialize(memory=st.sampled_from(BUDGETS), workers=st.integers(1, len(NAMES)), pick=PICK, calm=st.booleans())
    def start(self, memory, workers, pick, calm):
        self.world.make_pool(memory, gpus=1, **RULES)
        for number in range(workers):
            self.world.make_worker(NAMES[number], **SPECS[pick * (number + 1) % len(SPECS)])
        for operator in self.operators:
            operator.look_at_all(self.world)
        if calm:
            self.act("calm", 0)

    @rule(what=st.sampled_from(ACTS), pick=PICK)
    def act(self, what, pick):
        """Somebody does something; ``pick`` says who, and which of what is possible."""
        who = pick % 2
        operator, pick = self.operators[who], pick // 2
        match what:
            case "turn":
                self.turn(who, pick)
            case "watch":
                self.watch(operator, pick)
            case "work":
                self.work(who)
            case "sweep":
                operator.look_at_all(self.world)
            case "budget":
                operator.may_flip = not operator.may_flip
            case "crash":  # in the middle of what it did; another one starts and knows nothing
                self.operators[who] = Operator()
                self.operators[who].look_at_all(self.world)
                self.turns = {key: turn for key, turn in self.turns.items() if key[0] != who}
            case "thaw":  # one that was frozen since some earlier time wakes and goes on where it was
                sight = self.world.past[-1 - pick % len(self.world.past)]
                self.world.note(f"operator {who} wakes with a view of {pick % len(self.world.past)} lines ago")
                self.operators[who] = Operator(dict(sight.workers), dict(sight.pods), sight.pool)
                self.turns = {key: turn for key, turn in self.turns.items() if key[0] != who}
            case "calm":  # nothing bad for a while
                operator.look_at_all(self.world)
                settling.run(self.world, operator)
            case "wait":
                self.world.clock.seconds += PAUSES[pick % len(PAUSES)]
            case "go on":
                for kind in TOGETHER[pick % len(TOGETHER)]:
                    for step in nodes.steps(self.world):
                        if step.kind == kind:
                            step.happen(self.world)
            case "live" | "fail":
                possible = nodes.steps(self.world)
                self.happen(pick, [step for step in possible if (step.kind in nodes.FAULTS) is (what == "fail")])
            case _:
                self.people(what, pick)

    def people(self, what, pick):
        """Somebody makes, changes or deletes a worker, or the pool."""
        world, name, more = self.world, NAMES[pick % len(NAMES)], pick // len(NAMES)
        if what == "create":
            if name not in world.workers:
                world.make_worker(name, **SPECS[more % len(SPECS)])
            elif world.workers[name].ended:
                world.delete_worker(name)  # its name is free once the operator has let it go
        elif what == "resize":
            if world.pool is None:
                world.make_pool(BUDGETS[more % len(BUDGETS)], gpus=1, **RULES)
            elif pick % 16 == 0:
                world.delete_pool()
            else:
                world.change_pool(memory=BUDGETS[more % len(BUDGETS)], stop_policy=POLICIES[pick % len(POLICIES)])
        elif name in world.workers:
            match more % 6:
                case 0:
                    world.delete_worker(name)
                case 1:
                    world.change_worker(name, shutdown=True)
                case 2 | 3:
                    world.change_worker(name, eviction=("Never", "Auto")[more % 2])
                case _:
                    world.unwelcome = frozenset({name} if more % 2 else ())

    def turn(self, who, pick):
        """Begin a reconcile, or make the next request of it; sometimes a worker's answer is lost."""
        operator = self.operators[who]
        names = ["", *operator.workers]
        name = names[pick % len(names)]
        if (who, name) in self.turns:
            self.one_request((who, name), lost=pick > 2000)
            return
        turn = worker_turn.begin(self.world, operator, name) if name else pool_turn.begin(self.world, operator)
        if turn is not None:
            self.turns[who, name] = turn

    def work(self, who):
        """Finish what was begun, then do all that is believed to be done."""
        operator = self.operators[who]
        for key in [key for key in sorted(self.turns) if key[0] == who]:
            while key in self.turns:
                self.one_request(key)
        for worker in list(operator.workers.values()):
            if worker.uid in operator.watched:
                operator.ping(self.world, worker)
            settling.finish_worker(self.world, operator, worker.name)
        settling.finish_pool(self.world, operator)

    def watch(self, operator, pick):
        """One object's news come in, or a pong; the rest is believed to be as it was."""
        world = self.world
        names = sorted({*world.workers, *operator.workers})
        pods = sorted({*world.pods, *operator.pods})
        watched = [each for each in operator.workers.values() if each.uid in operator.watched]
        at = pick % (1 + len(names) + len(pods) + len(watched))
        if at == 0:
            operator.pool = world.pool
        elif at <= len(names):
            operator.read_worker(world, names[at - 1])
        elif at <= len(names) + len(pods):
            operator.read_pod(world, pods[at - len(names) - 1])
        else:
            operator.ping(world, watched[at - len(names) - len(pods) - 1])

    def happen(self, pick, possible):
        """One step, of a kind that is drawn first: a kind is no likelier for having many pods."""
        kinds = sorted({step.kind for step in possible})
        if kinds:
            those = [step for step in possible if step.kind == kinds[pick % len(kinds)]]
            those[pick // len(kinds) % len(those)].happen(self.world)

    def one_request(self, key, *, lost=False):
        turn, operator = self.turns.pop(key), self.operators[key[0]]
        if isinstance(turn, PoolTurn):
            left = pool_turn.advance(self.world, operator, turn)
        else:
            left = worker_turn.advance(self.world, operator, turn, lost=lost)
        if left is not None:
            self.turns[key] = left

    @invariant()
    def promises_hold(self):
        self.world.check()

    def teardown(self):
        settling.settle(self.world)


def test_whatever_happens_promises_hold_and_all_settles_once_faults_stop():
    explored = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        print_blob=True,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(seed(SEED)(Histories), settings=explored)
    except BaseException as error:
        error.add_note("\n".join(["what happened:", *Histories.told]))
        error.add_note(f"to see it again: SIMULATION_SEED={SEED} SIMULATION_EXAMPLES={EXAMPLES} pytest {__file__}")
        raise


@pytest.fixture
def served() -> tuple[World, Operator]:
    """A world in which worker a serves."""
    world, operator = World(), Operator()
    world.make_pool("1Gi", **RULES)
    world.make_worker("a")
    settling.run(world, operator)
    return world, operator


def test_a_calm_world_brings_a_worker_to_ready(served):
    world, _ = served
    assert world.workers["a"].status["state"] == "Ready"
    assert list(world.pool.ledger) == [world.workers["a"].uid]


def test_an_unused_worker_makes_room_for_one_that_waits(served):
    world, operator = served
    world.make_worker("b")
    settling.run(world, operator)
    assert world.workers["b"].status["state"] == "Spawning"
    for key in ("idleTimeoutSeconds", "minResidencySeconds"):
        world.clock.seconds += RULES[key]
        settling.run(world, operator)
    assert world.workers["a"].status["reason"] == "RoomEviction"
    assert world.workers["b"].status["state"] == "Ready"
