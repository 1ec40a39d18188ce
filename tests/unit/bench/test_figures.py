"""From samples to figures and targets."""

import io

import pytest

from bench import cold_start, embedding, text
from bench.__main__ import SUBJECTS, TARGETS, asked
from bench.figures import Sample, Samples, Target, nested, worst
from bench.table import Table
from bench.text import dtypes_of
from cluster.host import ClusterError


def rates(*numbers, who="ours", load="32"):
    return [Sample(number, who, load, {"per_second": rate}) for number, rate in enumerate(numbers)]


def test_a_ratio_is_the_median_of_the_rounds_ratios():
    """The machine is four times slower in the second round: no ratio of medians would be 2."""
    samples = Samples(rates(200, 50, 260) + rates(100, 25, 100, who="peer"))
    assert samples.ratio("per_second", ("ours", "32"), ("peer", "32")) == 2.0


def test_only_rounds_that_have_both_count():
    samples = Samples(rates(200, 900) + rates(100, who="peer"))
    assert samples.ratio("per_second", ("ours", "32"), ("peer", "32")) == 2.0


@pytest.mark.parametrize("other", [[], rates(100, who="peer", load="8"), rates(0, who="peer")])
def test_without_a_pair_there_is_no_ratio(other):
    assert Samples(rates(200) + other).ratio("per_second", ("ours", "32"), ("peer", "32")) is None


def test_medians_by_who_and_load():
    samples = Samples(rates(10, 30, 20) + rates(7, who="peer", load="8"))
    assert samples.medians() == {"ours": {"32": {"per_second": 20}}, "peer": {"8": {"per_second": 7}}}


@pytest.mark.parametrize(
    ("target", "value", "met"),
    [
        (Target("k", "", least=2.0), 2.0, True),
        (Target("k", "", least=2.0), 1.99, False),
        (Target("k", "", most=1.15), 1.15, True),
        (Target("k", "", most=1.15), 1.16, False),
    ],
)
def test_a_target_is_a_bound(target, value, met):
    assert target.met(value) is met


def test_of_several_ratios_the_worst_counts():
    assert worst([3.0, None, 2.0], high_is_good=True) == 2.0
    assert worst([3.0, None, 2.0], high_is_good=False) == 3.0
    assert worst([None], high_is_good=True) is None


def test_keys_become_a_tree():
    assert nested({"a.b": 1, "a.c": 2, "d": 3}) == {"a": {"b": 1, "c": 2}, "d": 3}


def test_every_target_is_among_the_figures():
    """Figures of no samples have all their keys."""
    keys = {"embedding": embedding.figures(Samples(), {}), "text": text.figures(Samples(), ["float32"])}
    keys["cold_start"] = cold_start.figures(Samples())
    assert set(keys) == set(SUBJECTS) == set(TARGETS)
    for subject, targets in TARGETS.items():
        assert {target.key for target in targets} <= set(keys[subject])


def embedding_samples(rate, latency):
    """One round: ``rate`` and ``latency`` map who to a number; direct calls are 100 a second and take 10 ms."""
    served = [
        Sample(0, who, load, {"per_second": number, "p50_ms": latency.get(who, 1.0)})
        for who, number in rate.items()
        for load in ("1", "32", "128")
    ]
    return Samples(
        [
            *served,
            Sample(0, "direct float32", "batches", {"per_second": 100.0}),
            Sample(0, "direct float32", "one_by_one", {"per_second": 100.0, "p50_ms": 10.0}),
        ]
    )


def test_embedding_figures():
    rate = {"ours float32": 90.0, "ours auto": 180.0, "infinity float32": 30.0, "infinity bfloat16": 120.0}
    samples = embedding_samples(rate, {"ours float32": 11.0, "ours auto": 12.0})
    found = embedding.figures(samples, {"ours float32": "float32", "ours auto": "bfloat16"})
    assert found["embedding.rps_32"] == 180.0
    assert found["embedding.ratio_infinity_32_same_dtype"] == 1.5  # bfloat16, the worse of the two
    assert found["embedding.ratio_infinity_32_float32"] == 3.0
    assert found["embedding.ratio_infinity_32_default"] == 6.0
    assert found["embedding.ratio_encode_fp32"] == pytest.approx(0.9)
    assert found["embedding.ratio_encode_auto"] == pytest.approx(1.8)
    assert found["embedding.p50_1_ratio"] == pytest.approx(1.2)  # auto, the worse of the two


def test_auto_that_became_float32_is_not_compared_in_bfloat16():
    samples = embedding_samples({"ours float32": 90.0, "ours auto": 90.0, "infinity float32": 30.0}, {})
    found = embedding.figures(samples, {"ours float32": "float32", "ours auto": "float32"})
    assert found["embedding.ratio_infinity_32_same_dtype"] == 3.0
    assert "embedding.ratio_infinity_32_bfloat16" not in found


def test_text_figures():
    def sample(who, load, rate, first):
        return Sample(0, who, load, {"tokens_per_second": rate, "first_p50_ms": first})

    samples = [
        sample("ours float32", "1", 40.0, 90.0),
        sample("ours float32", text.FIRST.name, 10.0, 55.0),
        sample("ours float32", "8", 120.0, 200.0),
        sample("serve float32", "1", 40.0, 50.0),
        sample("serve float32", text.FIRST.name, 10.0, 50.0),
        sample("serve float32", "8", 40.0, 8000.0),
        Sample(0, "direct float32", "sequential", {"tokens_per_second": 40.0}),
        Sample(0, "direct float32", "padded", {"tokens_per_second": 150.0}),
    ]
    found = text.figures(Samples(samples), ["float32"])
    assert found["text.ratio_sequential_8"] == 3.0
    assert found["text.ratio_padded_8"] == pytest.approx(0.8)
    assert found["text.ttft_ratio"] == pytest.approx(1.1)  # at 1 concurrent, the worse of the two


def test_phases_of_a_cold_start_add_up():
    found = cold_start.phases(0.4, 4.5, 4.6, {"import": 2.5, "fetch": 0.5, "load": 1.0, "warm_up": 0.25})
    assert found["total_s"] == 4.6
    in_turn = ("process", "imports", "load", "warm_up", "other", "ready")
    assert sum(found[name] for name in in_turn) == pytest.approx(4.6)


@pytest.mark.parametrize(
    ("features", "expected"),
    [(["avx2"], ["float32"]), (["avx512_bf16"], ["float32", "bfloat16"]), (["amx_bf16"], ["float32", "bfloat16"])],
)
def test_bfloat16_is_measured_where_the_cpu_has_it(features, expected):
    assert dtypes_of(features) == expected


def test_what_was_asked_for():
    assert asked("", "") == (list(SUBJECTS), 3)
    assert asked("text, embedding", "1") == (["text", "embedding"], 1)


@pytest.mark.parametrize(("subjects", "rounds"), [("images", ""), ("", "0"), ("", "many"), ("", "-1")])
def test_what_makes_no_sense_is_refused(subjects, rounds):
    with pytest.raises(ClusterError, match=r"BENCH=|ROUNDS=3"):
        asked(subjects, rounds)


def test_the_closing_table_says_met_missed_and_not_measured():
    out = io.StringIO()
    targets = [Target("a", "", least=2.0), Target("b", "", most=1.0), Target("c", "", least=1.0)]
    Table(out).targets(targets, {"a": 2.5, "b": 1.5})
    lines = out.getvalue().split("Targets\n")[1].splitlines()
    assert [line[2:15].strip() for line in lines] == ["met", "MISSED", "not measured"]
