"""The rules that are computed from the lifecycle's table."""

import re

import pytest

from modelpool_api import FLIP_STATES, STATES, WorkerState, allowed_moves
from modelpool_operator.api import cel, crd, syntax
from modelpool_operator.api.modelworker import ModelWorkerSpec

S = WorkerState


def test_a_change_of_state_is_a_move_of_the_table_or_one_within_the_load_group():
    moves = cel.state_moves()
    assert set(moves) == set(STATES)
    for state in STATES:
        load = FLIP_STATES - {state} if state in FLIP_STATES else frozenset()
        assert set(moves[state]) == allowed_moves()[state] | load
        assert len(set(moves[state])) == len(moves[state])


def test_ready_to_idle_and_back_may_be_one_write_though_the_table_has_no_way_back():
    assert S.READY not in allowed_moves()[S.IDLE]
    assert S.READY in cel.state_moves()[S.IDLE]


def test_the_rule_on_states_names_each_state_with_its_moves():
    _, move = cel.state_rules()
    table = re.search(r"\{(.*?)\}", move.rule)
    assert table is not None
    told = dict(re.findall(r"'(\w+)': \[(.*?)\]", table[1]))
    assert told == {str(state): ", ".join(f"'{to}'" for to in to) for state, to in cel.state_moves().items()}
    assert move.rule.endswith("self in ['Evicting', 'Failed', 'Dead'])")


def test_the_rule_on_transitions_knows_no_load_group():
    (rule,) = cel.transition_rules()
    assert "'Idle': ['Processing', 'Loading', 'Evicting', 'Failed', 'Dead']".replace(" ", "") in _ordered(rule.rule)


def _ordered(rule: str) -> str:
    """The rule with each list in the order of the expectation above, so that the table's order may change."""
    order = ["Processing", "Loading", "Evicting", "Failed", "Dead"]

    def sort(found: re.Match[str]) -> str:
        names = re.findall(r"'(\w+)'", found[1])
        return (
            "["
            + ",".join(f"'{name}'" for name in sorted(names, key=lambda n: order.index(n) if n in order else 9))
            + "]"
        )

    return re.sub(r"\[([^\]]*)\]", sort, rule.replace(" ", ""))


def test_every_field_of_a_workers_spec_is_fixed_or_listed_as_one_that_may_change():
    fields = set(ModelWorkerSpec.model_json_schema(by_alias=True)["properties"])
    assert set(cel.MUTABLE_FIELDS) < fields
    fixed = {name for name in fields if f"self.{name} == oldSelf.{name}" in crd.worker_rules()["spec"][0].rule}
    assert fixed == fields - set(cel.MUTABLE_FIELDS)


@pytest.mark.parametrize("rules", [crd.pool_rules(), crd.worker_rules()], ids=["pool", "worker"])
def test_every_rule_says_a_sentence_that_does_not_repeat_what_the_user_wrote(rules):
    for path, placed in rules.items():
        for rule in placed:
            assert len(rule.message.split()) >= 4, (path, rule)
            assert len(rule.message) <= 300
            assert "\n" not in rule.message
            if rule.expression:
                # states are an enumeration by then: nothing else of the object may stand in a message
                assert path in ("status.state", "status.transitions[]")


@pytest.mark.parametrize("text", ["it's", "two\nlines"])
def test_text_that_would_end_a_cel_string_is_refused(text):
    with pytest.raises(ValueError, match="expected text without quotes and line ends"):
        cel.quoted(text)


def test_a_backslash_stays_one():
    assert cel.quoted(r"\.") == r"r'\.'"


def test_reserved_variables_are_upper_case_and_each_begins_no_other():
    """A prefix that another one covers would be dead text."""
    plain = [prefix.removesuffix("$") for prefix in syntax.DENIED_ENV_PREFIXES]
    assert all(prefix == prefix.upper() for prefix in plain)
    covers = [prefix for prefix in syntax.DENIED_ENV_PREFIXES if not prefix.endswith("$")]
    for prefix in plain:
        assert [cover for cover in covers if prefix.startswith(cover)] in ([], [prefix])
