"""The chain of moves in ``status.transitions``: what ``kubectl get mw -w`` tells, bounded to the last 20."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from modelpool_api import FLIP_STATES, WorkerState, allowed_moves, parse_state
from modelpool_api.wire import MAX_TRANSITIONS
from modelpool_operator.domain.podview import format_time

#: CRD bound of a transition's message; the whole sentence stands in ``status.message``.
_MESSAGE_CHARS: Final = 256

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Move:
    """One move to be written: where to, why, and when it happened."""

    to: WorkerState
    reason: str
    message: str
    at: datetime


def is_flip(start: WorkerState, to: WorkerState) -> bool:
    """Whether a move is load (Ready, Processing, Idle among themselves) and not lifecycle."""
    return start in FLIP_STATES and to in FLIP_STATES


def appended(chain: Sequence[Entry], start: WorkerState, move: Move) -> list[Entry]:
    """Return the chain with one more move, at most 20 long, each entry legal and linked to the one before.

    When it is full, the oldest there-and-back of flips goes first (… Ready→Processing→Ready … tells nothing new),
    and only when there is none the oldest entry: so lifecycle moves are remembered longest. A move out of a state
    that this version does not know cannot be told: the chain begins anew, empty.
    """
    if start not in allowed_moves():
        return []
    entry: Entry = {
        "from": str(start),
        "to": str(move.to),
        "reason": move.reason,
        "message": move.message[:_MESSAGE_CHARS],
        "time": format_time(move.at),
    }
    longer = [*chain, entry]
    while len(longer) > MAX_TRANSITIONS:
        loop = _oldest_loop(longer)
        first, end = loop or (0, 1)
        longer = longer[:first] + longer[end:]
    return longer


def _oldest_loop(chain: Sequence[Entry]) -> tuple[int, int] | None:
    """Return [first, end) of the oldest run of flips that comes back to where it began; never the last entry."""
    for first, entry in enumerate(chain[:-1]):
        state = entry["from"]
        for end in range(first, len(chain) - 1):
            here = chain[end]
            if not is_flip(parse_state(here["from"]), parse_state(here["to"])):
                break
            if here["to"] == state:
                return first, end + 1
    return None


def is_legal(start: WorkerState, to: WorkerState) -> bool:
    """Whether the table has a move from ``start`` to ``to``."""
    return to in allowed_moves().get(start, frozenset())
