"""What is sent, and how the load generators' reports are read."""

import json

import pytest

from bench.embedding import cosine
from bench.streams import summary
from bench.texts import PROMPT_WORDS, SENTENCE_WORDS, common_words, prompts, sentences
from bench.wrk import MARK, NothingAnsweredError, parse, write_bodies
from cluster.host import ClusterError

WORDS = ["river", "bridge", "lamp", "stone"]
SEEN = {"requests": 300, "microseconds": 2_000_000, "p50": 1500, "p90": 2500, "p99": 9000}
NO_ERRORS = {"connect": 0, "read": 0, "write": 0, "status": 0, "timeout": 0}


def said(**changes):
    return f"Running 2s test\n{MARK}{json.dumps(SEEN | NO_ERRORS | changes)}\n"


def test_a_report_of_wrk_in_seconds_and_milliseconds():
    load = parse(said(), "http://127.0.0.1/x")
    assert (load.per_second, load.p50_ms, load.p99_ms) == (150.0, 1.5, 9.0)


@pytest.mark.parametrize("kind", NO_ERRORS)
def test_one_failed_request_fails_the_measurement(kind):
    with pytest.raises(ClusterError, match=f"'{kind}': 1"):
        parse(said(**{kind: 1}), "http://127.0.0.1/x")


def test_no_answer_at_all_is_told_apart():
    with pytest.raises(NothingAnsweredError):
        parse(said(requests=0), "http://127.0.0.1/x")


def test_a_wrk_that_says_something_else_is_quoted():
    with pytest.raises(ClusterError, match="unable to connect"):
        parse("unable to connect to 127.0.0.1:1", "http://127.0.0.1:1/x")


def answers(*tokens):
    return {
        "seconds": 4.0,
        "answers": [
            {"tokens": count, "first_ms": 10.0 * number, "total_ms": 100.0} for number, count in enumerate(tokens, 1)
        ],
    }


def test_a_report_of_streams():
    numbers = summary(answers(64, 64, 64), 64)
    assert numbers["tokens_per_second"] == 48.0
    assert (numbers["first_p50_ms"], numbers["first_worst_ms"]) == (20.0, 30.0)


def test_a_short_answer_fails_the_measurement():
    with pytest.raises(ClusterError, match=r"\[63, 64\] tokens, expected 64"):
        summary(answers(64, 63), 64)


def test_sentences_are_the_same_each_time_and_of_all_lengths():
    made = sentences(WORDS, 40)
    assert made == sentences(WORDS, 40)
    lengths = [len(each.split()) for each in made]
    assert {length: lengths.count(length) for length in SENTENCE_WORDS} == dict.fromkeys(SENTENCE_WORDS, 10)
    assert lengths[:8] != sorted(lengths[:8])


def test_prompts_spread_over_the_whole_range():
    lengths = [len(each.split()) for each in prompts(WORDS, 16)]
    assert (min(lengths), max(lengths)) == PROMPT_WORDS
    assert len(set(lengths)) == 16


def test_words_are_whole_and_english(tmp_path):
    lines = [f"[unused{number}]" for number in range(2000)] + ["the", "##ing", "1999", "été", "river", "of"]
    (tmp_path / "vocab.txt").write_text("\n".join(lines), encoding="utf-8")
    assert common_words(tmp_path / "vocab.txt") == ["the", "river"]


def test_bodies_are_one_a_line(tmp_path):
    target = write_bodies([{"input": "a\nb"}, {"input": "c"}], tmp_path / "bodies")
    assert [json.loads(line)["input"] for line in target.read_text().splitlines()] == ["a\nb", "c"]


@pytest.mark.parametrize(("left", "right", "expected"), [([3.0, 4.0], [6.0, 8.0], 1.0), ([1.0, 0.0], [0.0, 2.0], 0.0)])
def test_cosine(left, right, expected):
    assert cosine(left, right) == pytest.approx(expected)


def test_a_vector_without_length_is_near_nothing():
    assert not cosine([0.0], [1.0]) >= 0.0
