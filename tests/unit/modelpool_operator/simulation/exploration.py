"""Exploring all histories: every state that can be reached by what anybody may do next, breadth first.

A state is a world, what the operator remembers, and the reconciles that are in the middle of their requests. The
operator does one thing at a time, may crash between any two requests, and may be frozen in a reconcile: then another
one leads, and the frozen one wakes at any later time and goes on.
"""

import gc
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple

from modelpool_operator.domain.plan import AskEvict
from unit.modelpool_operator.simulation import nodes, pool_turn, settling, worker_turn
from unit.modelpool_operator.simulation.digest import digest
from unit.modelpool_operator.simulation.operators import Operator
from unit.modelpool_operator.simulation.oracle import Violation
from unit.modelpool_operator.simulation.pool_turn import PoolTurn
from unit.modelpool_operator.simulation.worker_turn import WorkerTurn
from unit.modelpool_operator.simulation.world import World

#: What follows at once, so that there are fewer states.
_FOLLOWS: Final = {"schedule": "start", "load": "probe", "hang": "probe"}
_FROZEN: Final = "frozen "


@dataclass
class State:
    """A world, its operator, and the reconciles on their way by worker's name, "" for the pool."""

    world: World
    operator: Operator
    turns: dict[str, WorkerTurn | PoolTurn] = field(default_factory=dict)
    #: which of them is being carried out
    at_work: str | None = None
    #: how many things have gone wrong, or were wished by somebody
    troubles: int = 0
    #: how many leaders were frozen
    frozen: int = 0

    def copy(self) -> "State":
        """Return one that goes its own way."""
        world, operator = self.world.copy(), self.operator.copy()
        return State(world, operator, dict(self.turns), self.at_work, self.troubles, self.frozen)

    def key(self) -> object:
        """Return what tells this state from others."""
        return self.troubles, self.frozen, self.at_work, digest(self.world, self.operator, self.turns)


class Edge(NamedTuple):
    """One thing that may happen next; ``fair``: it happens sooner or later if it stays possible."""

    what: str
    do: Callable[[State], None]
    fair: bool


@dataclass(frozen=True)
class Scenario:
    """Where histories begin, and how much may happen in one beside the ordinary course of things."""

    begin: Callable[[], State]
    #: which things may go wrong or be wished: kinds of steps, last words of wishes
    kinds: frozenset[str] = frozenset()
    #: so many of them in one history
    troubles: int = 0
    #: so many leaders are frozen in one history, in any reconcile or only before they ask a worker to go
    frozen: int = 0
    frozen_anywhere: bool = True
    #: so many requests are sent to one process
    requests: int = 0
    #: whose pods come to a node; the others' stay where the operator leaves them
    scheduled: str = "a"

    def edges(self, state: State) -> Iterator[Edge]:
        """Everything that anybody may do next."""
        if state.at_work is not None:
            yield from self._requests(state, state.at_work)
            return
        for name in sorted({"", *state.world.workers, *state.turns}):
            look = Edge(f"look at {name or 'the pool'}", partial(_begin, name), True)
            yield _go_on(name) if name in state.turns else look
        trouble = state.troubles < self.troubles
        for step in nodes.steps(state.world):
            if self._likely(state.world, step):
                yield Edge(f"{step.kind} {step.pod}", partial(_happen, step, 0), step.kind in settling.FAIR)
            elif trouble and step.kind in self.kinds:
                yield Edge(f"{step.kind} {step.pod}", partial(_happen, step, 1), False)
        yield Edge("a second passes", _tick, True)
        if trouble:
            yield from (edge for edge in _wishes(state.world) if edge.what.split()[-1] in self.kinds)

    def _requests(self, state: State, name: str) -> Iterator[Edge]:
        """The next request is made, its answer is lost, or it is not made any more or only much later."""
        yield _go_on(name)
        turn = state.turns[name]
        asks = isinstance(turn, worker_turn.Carrying) and isinstance(turn.todo[0], AskEvict)
        if asks:
            yield Edge(f"{name} goes on, the answer is lost", partial(_advance, name, True), False)
        yield Edge("the operator crashes", _crash, False)
        if state.frozen < self.frozen and not name.startswith(_FROZEN) and (asks or self.frozen_anywhere):
            yield Edge(f"the operator freezes at {name or 'the pool'}", _freeze, False)

    def _likely(self, world: World, step: nodes.Step) -> bool:
        if step.kind == "schedule":
            return step.pod[0] in self.scheduled
        if step.kind == "admit":
            return world.processes[world.pods[step.pod].uid].served < self.requests
        return step.kind in settling.FAIR


@dataclass
class Explored:
    """All states by number, how each was reached first, and from where fair courses lead to it."""

    keys: dict[object, int] = field(default_factory=dict)
    came: list[tuple[int, str]] = field(default_factory=list)
    back: list[list[int]] = field(default_factory=list)
    #: those in which nothing happens any more by itself
    quiet: list[int] = field(default_factory=list)

    def add(self, key: object, came: tuple[int, str]) -> int | None:
        """Number a state; None for one that is known."""
        if key in self.keys:
            return None
        self.keys[key] = number = len(self.came)
        self.came.append(came)
        self.back.append([])
        return number

    def way(self, number: int) -> str:
        """Return the shortest way to a state."""
        path: list[str] = []
        while number:
            number, what = self.came[number]
            path.append(what)
        return " → ".join(reversed(path))

    def dead_end(self) -> str | None:
        """Return the way to a state from which no fair course leads to rest; None where there is none."""
        rests, waiting = set(self.quiet), deque(self.quiet)
        while waiting:
            for before in self.back[waiting.popleft()]:
                if before not in rests:
                    rests.add(before)
                    waiting.append(before)
        return next((self.way(number) for number in range(len(self.came)) if number not in rests), None)


def explore(scenario: Scenario, judge_quiet: Callable[[World], None]) -> Explored:
    """Visit every state that can be reached; raise ``Violation`` with the shortest way to a broken promise."""
    found, start = Explored(), scenario.begin()
    found.add(start.key(), (0, ""))
    waiting = deque([(0, start)])
    gc.disable()  # nothing of this is garbage before the end, and looking for some takes a fifth of the time
    try:
        while waiting:
            _leave(*waiting.popleft(), scenario, found, waiting, judge_quiet)
    finally:
        gc.enable()
    return found


def _leave(
    number: int,
    state: State,
    scenario: Scenario,
    found: Explored,
    waiting: deque[tuple[int, State]],
    judge_quiet: Callable[[World], None],
) -> None:
    """Go every way that leads from a state."""
    quiet = True
    for what, do, fair in scenario.edges(state):
        there = state.copy()
        _judged(partial(_take, do, there), f"{found.way(number)} → {what}")
        key = there.key()
        if (new := found.add(key, (number, what))) is not None:
            waiting.append((new, there))
        if fair and found.keys[key] != number:
            quiet = False
            found.back[found.keys[key]].append(number)
    if quiet:
        found.quiet.append(number)
        _judged(partial(judge_quiet, state.world), found.way(number))


def _take(do: Callable[[State], None], state: State) -> None:
    do(state)
    state.world.check()


def _judged(act: Callable[[], None], way: str) -> None:
    try:
        act()
    except Violation as error:
        raise Violation(f"{error}; after: {way}") from error


def _begin(name: str, state: State) -> None:
    """Read everything, ping who is to be pinged, and plan."""
    operator = state.operator
    operator.look_at_all(state.world)
    for worker in state.world.workers.values():
        if worker.uid in operator.watched:
            operator.ping(state.world, worker)
    if name:
        _put(state, name, worker_turn.begin_fresh(state.world, operator, name))
    else:
        _put(state, name, pool_turn.begin(state.world, operator))


def _go_on(name: str) -> Edge:
    return Edge(f"{name or 'the pool'} goes on", partial(_advance, name, False), True)


def _advance(name: str, lost: bool, state: State) -> None:
    state.operator.look_at_all(state.world)
    turn = state.turns.pop(name)
    if isinstance(turn, PoolTurn):
        _put(state, name, pool_turn.advance(state.world, state.operator, turn))
    else:
        _put(state, name, worker_turn.advance(state.world, state.operator, turn, lost=lost))


def _put(state: State, name: str, turn: WorkerTurn | PoolTurn | None) -> None:
    state.at_work = None if turn is None else name
    if turn is not None:
        state.turns[name] = turn


def _freeze(state: State) -> None:
    """Another operator leads from now on, until this one wakes and goes on."""
    name = state.at_work or ""
    state.turns[_FROZEN + (name or "pool")] = state.turns.pop(name)
    state.frozen, state.at_work = state.frozen + 1, None


def _crash(state: State) -> None:
    """All that was in the middle is dropped, and all that was remembered."""
    state.operator, state.at_work = Operator(tells=state.operator.tells), None
    state.turns = {name: turn for name, turn in state.turns.items() if name.startswith(_FROZEN)}


def _tick(state: State) -> None:
    state.world.clock.seconds += 1.0


def _happen(step: nodes.Step, troubles: int, state: State) -> None:
    state.troubles += troubles
    step.happen(state.world)
    for then in nodes.steps(state.world):
        if (then.kind, then.pod) == (_FOLLOWS.get(step.kind), step.pod):
            then.happen(state.world)


def _wishes(world: World) -> Iterator[Edge]:
    """What users may want."""
    for name, worker in world.workers.items():
        if not worker.deleting:
            yield Edge(f"{name} is deleted", partial(_wish, lambda there, name=name: there.delete_worker(name)), False)
        if not worker.spec.shutdown:
            stop = partial(_wish, lambda there, name=name: there.change_worker(name, shutdown=True))
            yield Edge(f"{name} gets shutdown", stop, False)
    if world.pool is None or world.pool.deleting:
        return
    yield Edge("the pool is dissolved", partial(_wish, World.delete_pool), False)
    for rule, value in (("memory", "512Mi"), ("memory", "2Gi"), ("stop_policy", "HoldAndDrain")):
        change = {rule: value}
        if getattr(world.pool.spec, rule) != value:
            change_it = partial(_wish, lambda there, change=change: there.change_pool(**change))
            yield Edge(f"the pool gets {value}", change_it, False)


def _wish(wish: Callable[[World], None], state: State) -> None:
    state.troubles += 1
    wish(state.world)
