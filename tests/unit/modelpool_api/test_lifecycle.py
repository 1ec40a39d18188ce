"""The transition table and what is derived from it."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpool_api import (
    EVICTABLE_STATES,
    INITIAL_STATE,
    LIVE_STATES,
    ROUTABLE_STATES,
    STATES,
    TERMINAL_STATES,
    TRANSITIONS,
    IllegalTransitionError,
    WorkerEvent,
    WorkerState,
    allowed_moves,
    next_state,
    parse_state,
    shortest_path,
)

S = WorkerState


def test_the_table_as_it_is_promised():
    assert {state: set(targets) for state, targets in allowed_moves().items()} == {
        S.SPAWNING: {S.LOADING, S.FAILED, S.EVICTING},
        S.LOADING: {S.READY, S.FAILED, S.EVICTING},
        S.READY: {S.PROCESSING, S.IDLE, S.LOADING, S.FAILED, S.EVICTING, S.DEAD},
        S.PROCESSING: {S.READY, S.LOADING, S.FAILED, S.EVICTING, S.DEAD},
        S.IDLE: {S.PROCESSING, S.LOADING, S.FAILED, S.EVICTING, S.DEAD},
        S.EVICTING: {S.DEAD},
        S.FAILED: {S.DEAD},
        S.DEAD: set(),
    }


def test_groups_of_states():
    assert INITIAL_STATE is S.SPAWNING
    assert {S.DEAD} == TERMINAL_STATES
    assert {S.READY, S.IDLE} == EVICTABLE_STATES
    assert {S.READY, S.PROCESSING, S.IDLE} == ROUTABLE_STATES
    assert {S.SPAWNING, S.LOADING, S.READY, S.PROCESSING, S.IDLE} == LIVE_STATES
    assert S.UNKNOWN not in STATES


@pytest.mark.parametrize("state", [*STATES, S.UNKNOWN], ids=str)
@pytest.mark.parametrize("event", WorkerEvent, ids=str)
def test_a_move_is_in_the_table_or_raises(state, event):
    goal = TRANSITIONS.get(state, {}).get(event)
    if goal is not None:
        assert next_state(state, event) is goal
    else:
        with pytest.raises(IllegalTransitionError, match=f"in state {state} takes no event {event}; expected one of"):
            next_state(state, event)


@given(st.sampled_from(STATES), st.lists(st.sampled_from(list(WorkerEvent)), max_size=30))
def test_evicting_failed_and_dead_never_come_back(start, events):
    state, gone = start, False
    for event in events:
        if event in TRANSITIONS[state]:
            state = next_state(state, event)
            assert not (gone and state in LIVE_STATES)
            gone = gone or state not in LIVE_STATES


def test_every_state_ends_dead_and_is_reached_from_the_first():
    for state in STATES:
        assert shortest_path(state, S.DEAD) is not None
        assert shortest_path(INITIAL_STATE, state) is not None


@pytest.mark.parametrize(
    ("start", "goal", "path"),
    [
        (S.SPAWNING, S.READY, (S.LOADING, S.READY)),
        (S.READY, S.READY, ()),
        (S.SPAWNING, S.IDLE, (S.LOADING, S.READY, S.IDLE)),
        (S.IDLE, S.READY, (S.PROCESSING, S.READY)),
        (S.DEAD, S.READY, None),
        (S.UNKNOWN, S.READY, None),
    ],
    ids=str,
)
def test_the_shortest_legal_way(start, goal, path):
    assert shortest_path(start, goal) == path


@pytest.mark.parametrize(
    ("text", "state"), [("Ready", S.READY), ("Sleeping", S.UNKNOWN), ("", S.UNKNOWN), (None, S.UNKNOWN)], ids=str
)
def test_a_state_of_another_version_is_unknown(text, state):
    assert parse_state(text) is state


def test_the_contract_imports_neither_torch_nor_a_server():
    code = "import sys, modelpool_api; print(sorted({'torch', 'starlette', 'kubernetes', 'kopf'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
