"""The chain of moves in status: bounded, linked, legal, and true at its end."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from modelpool_api import WorkerState, allowed_moves, parse_state
from modelpool_operator.domain.transitions import Move, appended
from unit.modelpool_operator.domain.scenes import NOW

_S = WorkerState
CHAIN = 20


def walk(*states: WorkerState) -> list[dict[str, str]]:
    chain: list[dict[str, str]] = []
    for start, to in itertools.pairwise(states):
        chain = appended(chain, start, Move(to, "Test", "", NOW))
    return chain


def story(chain: list[dict[str, str]]) -> list[str]:
    return [chain[0]["from"], *(entry["to"] for entry in chain)]


def test_a_short_life_is_told_in_full():
    life = (_S.SPAWNING, _S.LOADING, _S.READY, _S.PROCESSING, _S.READY, _S.IDLE, _S.EVICTING, _S.DEAD)
    assert story(walk(*life)) == list(life)


def test_a_busy_life_forgets_its_oldest_flips_and_keeps_its_beginning():
    life = (_S.SPAWNING, _S.LOADING, *[_S.READY, _S.PROCESSING] * 40, _S.READY, _S.IDLE, _S.EVICTING, _S.DEAD)
    told = story(walk(*life))
    assert len(told) <= CHAIN + 1
    assert told[:3] == ["Spawning", "Loading", "Ready"]
    assert told[-3:] == ["Idle", "Evicting", "Dead"]


def test_restarts_alone_push_the_oldest_out():
    life = (_S.SPAWNING, _S.LOADING, *[_S.READY, _S.LOADING] * 15)
    chain = walk(*life)
    assert len(chain) == CHAIN
    assert chain[-1]["to"] == "Loading"


def test_a_long_message_is_cut_to_what_the_crd_takes():
    (entry,) = appended([], _S.SPAWNING, Move(_S.FAILED, "Test", "x" * 5000, NOW))
    assert len(entry["message"]) == 256


@given(st.lists(st.integers(0, 9), max_size=120))
@settings(max_examples=300, deadline=None, database=None, print_blob=True)
def test_after_any_life_the_chain_is_legal_linked_bounded_and_ends_in_the_state(choices):
    moves, state = allowed_moves(), _S.SPAWNING
    chain: list[dict[str, str]] = []
    for choice in choices:
        onward = sorted(moves[state])
        # mostly on, seldom out: long lives are what fills the chain
        lively = [to for to in onward if to not in (_S.FAILED, _S.DEAD, _S.EVICTING)] or onward
        if not lively:
            break
        to = lively[choice % len(lively)] if choice < 9 else onward[choice % len(onward)]
        chain = appended(chain, state, Move(to, "Test", "", NOW))
        state = to
        assert len(chain) <= CHAIN
        assert chain[-1]["to"] == state
        for entry in chain:
            assert parse_state(entry["to"]) in moves[parse_state(entry["from"])]
        for before, after in itertools.pairwise(chain):
            assert before["to"] == after["from"]
