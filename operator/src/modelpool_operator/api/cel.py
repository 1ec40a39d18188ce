"""Rules that the API server itself checks, written in CEL; those of the lifecycle are computed from its table.

A rule runs on create and on every update of its part of the object. One that names ``oldSelf`` compares with what
is stored. Every rule has a sentence as message: it is what a user reads when an apply is refused.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from modelpool_api import FLIP_STATES, INITIAL_STATE, LIVE_STATES, STATES, WorkerState, allowed_moves

#: What may change in a ModelWorker's spec; a field that is not listed here is fixed.
MUTABLE_FIELDS: Final = ("idleTimeoutSeconds", "evictAfterSeconds", "eviction", "shutdown")
#: States that keep the reason they were entered with, to the end.
_FIXED_REASON: Final = (WorkerState.FAILED, WorkerState.DEAD)


@dataclass(frozen=True, slots=True)
class Rule:
    """One validation rule; ``expression`` gives a message with details, ``message`` is said where it cannot."""

    rule: str
    message: str
    expression: str = ""
    optional_old: bool = False

    def to_schema(self) -> dict[str, Any]:
        """Return the entry of ``x-kubernetes-validations``."""
        entry: dict[str, Any] = {"rule": self.rule, "message": self.message}
        if self.expression:
            entry["messageExpression"] = self.expression
        if self.optional_old:
            entry["optionalOldSelf"] = True
        return entry


def quoted(text: str) -> str:
    """Return ``text`` as a raw CEL string; it may hold backslashes, not quotes or line ends."""
    if "'" in text or "\n" in text:
        raise ValueError("expected text without quotes and line ends, for example ^[a-z]+$")
    return f"r'{text}'" if "\\" in text else f"'{text}'"


def listed(texts: Iterable[str]) -> str:
    """Return a CEL list of strings."""
    return "[" + ", ".join(quoted(str(text)) for text in texts) + "]"


def _mapped(table: Mapping[WorkerState, str]) -> str:
    return "{" + ", ".join(f"{quoted(str(state))}: {value}" for state, value in table.items()) + "}"


def state_moves() -> dict[WorkerState, tuple[WorkerState, ...]]:
    """Return which states ``status.state`` may change to in one write.

    It is the table with Ready, Processing and Idle as one class: moves among them are load, and several may be
    written as one.
    """
    table = allowed_moves()
    flips = frozenset(FLIP_STATES)
    return {
        state: tuple(to for to in STATES if to in table[state] or (state in flips and to in flips and to is not state))
        for state in STATES
    }


def _entry_moves() -> dict[WorkerState, tuple[WorkerState, ...]]:
    table = allowed_moves()
    return {state: tuple(to for to in STATES if to in table[state]) for state in STATES}


def state_rules() -> list[Rule]:
    """Return the rules of ``status.state``."""
    moves = state_moves()
    table = _mapped({state: listed(to) for state, to in moves.items()})
    ways_out = [state for state in STATES if state not in LIVE_STATES]
    ends = ", ".join(ways_out)
    told = _mapped({state: quoted(", ".join(to) or "no other state") for state, to in moves.items()})
    return [
        Rule(
            f"oldSelf.hasValue() || self == {quoted(INITIAL_STATE)}",
            f"a worker begins its life as {INITIAL_STATE}",
            optional_old=True,
        ),
        Rule(
            f"self == oldSelf || (oldSelf in {table} ? self in {table}[oldSelf] : self in {listed(ways_out)})",
            "a worker cannot make this move",
            f"'a worker cannot go from ' + oldSelf + ' to ' + self + '; from ' + oldSelf + ' it can go to: ' + "
            f"(oldSelf in {told} ? {told}[oldSelf] : {quoted(ends)})",
        ),
    ]


def transition_rules() -> list[Rule]:
    """Return the rules of one entry of ``status.transitions``."""
    table = _mapped({state: listed(to) for state, to in _entry_moves().items()})
    return [
        Rule(
            f"self.from in {table} && self.to in {table}[self.from]",
            "a transition must be a move that the lifecycle has",
            "'the lifecycle has no move from ' + self.from + ' to ' + self.to",
        )
    ]


def worker_status_rules() -> list[Rule]:
    """Return the rules of a ModelWorker's ``status``."""
    known, fixed = listed(STATES), listed(_FIXED_REASON)
    return [
        Rule("!has(oldSelf.state) || has(self.state)", "status.state may not be removed"),
        Rule(
            f"!has(oldSelf.state) || !(oldSelf.state in {fixed}) || !has(oldSelf.reason) || oldSelf.reason == '' || "
            "(has(self.reason) && self.reason == oldSelf.reason)",
            "a worker that is Failed or Dead keeps its reason",
        ),
        Rule(
            "!has(self.transitions) || self.transitions.size() == 0 || "
            "(has(self.state) && self.transitions[self.transitions.size() - 1].to == self.state)",
            "the last of status.transitions must end in status.state",
        ),
        Rule(
            "!has(self.transitions) || self.transitions.all(i, t, i == 0 || self.transitions[i - 1].to == t.from)",
            "status.transitions must be one chain: each begins in the state that the one before it ends in",
        ),
        Rule(
            "!has(oldSelf.transitions) || oldSelf.transitions.size() == 0 || "
            "(has(self.transitions) && self.transitions.size() > 0) || "
            f"!has(oldSelf.state) || !(oldSelf.state in {known})",
            "status.transitions may not be emptied",
        ),
        Rule(
            "!has(oldSelf.observedGeneration) || "
            "(has(self.observedGeneration) && self.observedGeneration >= oldSelf.observedGeneration)",
            "status.observedGeneration never goes back",
        ),
    ]


def keeps_status() -> Rule:
    """Return the rule that a status, once written, stays."""
    return Rule("!has(oldSelf.status) || has(self.status)", "status may not be removed")


def immutability(required: Iterable[str], optional: Iterable[str]) -> list[Rule]:
    """Return the rules that fix a ModelWorker's spec but for ``MUTABLE_FIELDS``; arguments are its fields."""
    may_change = ", ".join(MUTABLE_FIELDS[:-1]) + f" and {MUTABLE_FIELDS[-1]}"
    return [
        Rule(
            " && ".join(
                [f"self.{name} == oldSelf.{name}" for name in required]
                + [
                    f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})"
                    for name in optional
                    if name not in MUTABLE_FIELDS
                ]
            ),
            f"a ModelWorker is one incarnation, as a Pod is: only {may_change} may change; make a new one for the rest",
        ),
        Rule(
            "!has(oldSelf.shutdown) || !oldSelf.shutdown || (has(self.shutdown) && self.shutdown)",
            "shutdown cannot be taken back; make a new ModelWorker instead",
        ),
    ]


def ledger_rules() -> list[Rule]:
    """Return the rules of a ModelPool's ``status``."""
    return [
        Rule(
            "has(self.reserved) == has(self.ledger)",
            "status.reserved and status.ledger come together",
        ),
        Rule("!has(oldSelf.ledger) || has(self.ledger)", "status.ledger may not be removed"),
        Rule(
            "!has(self.ledger) || !has(self.reserved) || ("
            "self.ledger.map(uid, self.ledger[uid].memoryMiB).sum() == self.reserved.memoryMiB && "
            "self.ledger.map(uid, self.ledger[uid].gpus).sum() == self.reserved.gpus)",
            "status.reserved must be the sum of status.ledger",
        ),
        Rule(
            "!has(oldSelf.ledgerRepairs) || (has(self.ledgerRepairs) && self.ledgerRepairs >= oldSelf.ledgerRepairs)",
            "status.ledgerRepairs never goes back",
        ),
    ]


def budget_rule() -> Rule:
    """Return the rule of a whole ModelPool that no reservation is added beyond the budget.

    A write passes when the sum lies within spec, or when it only takes entries away (a pool that was shrunk empties
    itself), or when it counts a repair (a pod that runs is charged whether there is room or not).
    """
    within = (
        "(quantity('0').add(self.status.reserved.memoryMiB * 1048576).compareTo(quantity(self.spec.memory)) <= 0 && "
        "self.status.reserved.gpus <= (has(self.spec.gpus) ? self.spec.gpus : 0))"
    )
    only_less = (
        "(has(oldSelf.status) && has(oldSelf.status.reserved) && has(oldSelf.status.ledger) && "
        "self.status.reserved.memoryMiB <= oldSelf.status.reserved.memoryMiB && "
        "self.status.reserved.gpus <= oldSelf.status.reserved.gpus && "
        "has(self.status.ledger) && self.status.ledger.all(uid, uid in oldSelf.status.ledger))"
    )
    repaired = (
        "(has(self.status.ledgerRepairs) && self.status.ledgerRepairs > "
        "(has(oldSelf.status) && has(oldSelf.status.ledgerRepairs) ? oldSelf.status.ledgerRepairs : 0))"
    )
    return Rule(
        f"!has(self.status) || !has(self.status.reserved) || {within} || {only_less} || {repaired}",
        "no reservation may be added beyond the pool's budget (spec.memory, spec.gpus)",
    )
