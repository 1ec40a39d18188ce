"""Choosing tokens, against the definitions of what is asked for."""

import math

import pytest
import torch

from modelpool_worker.generation.request import Sampling
from modelpool_worker.generation.sampler import Draw, choose

pytestmark = pytest.mark.models

SIZE = 1500
GREEDY = Sampling(temperature=0)


def logits(rows=1, seed=3):
    return torch.randn(rows, SIZE, generator=torch.Generator().manual_seed(seed)) * 3


def tokens(numbers, samplings):
    return [each.token for each in choose(numbers, [Draw.begin(sampling) for sampling in samplings])]


def drawn(numbers, sampling, count):
    """Draw ``count`` tokens, each by a row of its own with a seed of its own."""
    draws = [Draw.begin(sampling, choice) for choice in range(count)]
    return [each.token for each in choose(numbers.expand(count, -1), draws)]


def nucleus(numbers, sampling):
    """The tokens that may be drawn: the fewest likeliest ones that have the share, and those as likely within 1 %."""
    weights = (numbers[0] / sampling.temperature).softmax(0).double()
    kept, total = set(), 0.0
    for token in weights.argsort(descending=True).tolist():
        kept.add(token)
        total += float(weights[token])
        if total >= sampling.top_p:
            break
    return {each for each in range(SIZE) if each in kept or weights[each] > weights[token] * 0.99}


@pytest.mark.parametrize("temperature", [0, 1e-300, 1e-5])
def test_cold_is_the_likeliest_token(temperature):
    numbers = logits(5)
    assert tokens(numbers, [Sampling(temperature=temperature)] * 5) == numbers.argmax(-1).tolist()


def test_a_seed_gives_the_same_token_again_and_a_choice_another():
    sampling = Sampling(seed=11)
    numbers = logits() / 10
    first = drawn(numbers, sampling, 20)
    assert first == drawn(numbers, sampling, 20)
    assert len(set(first)) > 10
    assert first[3] == tokens(numbers, [Sampling(seed=14)])[0], "the choice is added to the seed"


def test_without_a_seed_it_is_another_text_each_time():
    numbers = torch.zeros(1, SIZE)
    assert len(set(drawn(numbers, Sampling(), 30))) > 20


@pytest.mark.parametrize("seed", [0, -1, 2**63 - 1, -(2**63)])
def test_any_seed_will_do(seed):
    assert tokens(logits(), [Sampling(seed=seed)]) == tokens(logits(), [Sampling(seed=seed)])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_as_often_as_they_are_likely(temperature):
    numbers = torch.tensor([[2.0, 1.0, 0.0, -1.0, -30.0]])
    count = 4000
    found = torch.bincount(torch.tensor(drawn(numbers, Sampling(temperature=temperature, seed=0), count)), minlength=5)
    expected = (numbers[0] / temperature).softmax(0) * count
    assert found[4] == 0
    assert (((found - expected) ** 2 / expected)[:4].sum()) < 16.3, "chi-square, 3 degrees of freedom, p = 0.001"


@pytest.mark.parametrize("top_p", [1e-9, 0.1, 0.5, 0.9, 0.999999])
@pytest.mark.parametrize("spread", [0.01, 3.0], ids=["flat", "steep"])
def test_top_p_draws_among_the_fewest_likeliest_tokens_that_have_the_share(top_p, spread):
    """Flat enough, they are more than are looked at first."""
    sampling = Sampling(temperature=0.8, top_p=top_p, seed=5)
    numbers = logits() * spread
    allowed = nucleus(numbers, sampling)
    found = set(drawn(numbers, sampling, 3000))
    assert found <= allowed
    weights = (numbers[0] / sampling.temperature).softmax(0)
    assert found >= {token for token in allowed if weights[token] > 0.01}
    assert len(found) > 300 or spread == 3.0 or top_p < 0.5


def test_penalties_count_what_was_generated():
    numbers = torch.tensor([[5.0, 4.0, 3.0, -9.0]])
    draw = Draw.begin(Sampling(temperature=0, presence_penalty=0.7, frequency_penalty=0.5))
    found = [choose(numbers, [draw])[0].token for _ in range(6)]
    scores, expected, seen = [5.0, 4.0, 3.0, -9.0], [], set()
    for _ in range(6):
        token = max(range(4), key=scores.__getitem__)
        scores[token] -= 0.5 + (0.7 if token not in seen else 0)
        seen.add(token)
        expected.append(token)
    assert found == expected
    assert len(set(found)) == 3


def test_negative_penalties_draw_a_token_again():
    numbers = torch.tensor([[1.0, 0.9]])
    draw = Draw.begin(Sampling(temperature=0, frequency_penalty=-1.0))
    assert [choose(numbers, [draw])[0].token for _ in range(3)] == [0, 0, 0]


def test_a_presence_penalty_counts_once_even_where_the_frequencies_cancel_it():
    draw = Draw.begin(Sampling(temperature=0, presence_penalty=1.0, frequency_penalty=-1.0))
    numbers = torch.tensor([[1.0, 0.5, 0.0]])
    assert [choose(numbers, [draw])[0].token for _ in range(3)] == [0, 0, 0]
    assert float(draw.penalty[0]) == -2.0


@pytest.mark.parametrize("count", [0, 1, 5, 20])
def test_logprobs_are_those_of_the_model_whatever_the_temperature_and_penalties(count):
    numbers = logits()
    draw = Draw.begin(Sampling(temperature=1.7, top_p=0.5, presence_penalty=2, seed=1, top_logprobs=count))
    for _ in range(3):
        chosen = choose(numbers, [draw])[0]
        normal = numbers[0].log_softmax(0)
        values, places = normal.topk(count)
        assert chosen.logprobs.chosen == pytest.approx(float(normal[chosen.token]), abs=1e-5)
        assert [token for token, _ in chosen.logprobs.top] == places.tolist()
        assert [value for _, value in chosen.logprobs.top] == pytest.approx(values.tolist(), abs=1e-5)


def test_no_logprobs_where_none_are_wanted():
    numbers = logits(2)
    chosen = choose(numbers, [Draw.begin(GREEDY), Draw.begin(Sampling(temperature=0, top_logprobs=2))])
    assert chosen[0].logprobs is None
    assert len(chosen[1].logprobs.top) == 2


@pytest.mark.parametrize("bad", [math.nan, math.inf], ids=str)
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(seed=1), Sampling(seed=1, top_p=0.5, top_logprobs=3)])
def test_a_row_without_finite_numbers_has_no_token_and_its_neighbours_do(bad, sampling):
    numbers = logits(3)
    numbers[1, 77] = bad
    alone = [choose(numbers[[row]], [Draw.begin(sampling)])[0] for row in range(3)]
    together = choose(numbers, [Draw.begin(sampling) for _ in range(3)])
    assert together == alone
    assert [each is None for each in together] == [False, True, False]


def test_a_row_where_nothing_is_possible_has_no_token():
    assert choose(torch.full((1, 9), -math.inf), [Draw.begin(Sampling())]) == [None]


def test_tokens_that_the_model_rules_out_are_never_drawn():
    numbers = torch.full((1, 50), -math.inf)
    numbers[0, [4, 9]] = 1.0
    assert set(drawn(numbers, Sampling(seed=0, top_p=0.9), 200)) == {4, 9}


def test_rows_of_all_kinds_get_together_what_they_get_alone():
    samplings = [
        GREEDY,
        Sampling(seed=1),
        Sampling(seed=2, top_p=0.7),
        Sampling(seed=3, temperature=0.3, top_p=0.95, top_logprobs=4),
        Sampling(seed=4, presence_penalty=1, frequency_penalty=1),
        Sampling(temperature=0, frequency_penalty=2, top_logprobs=0),
    ]
    numbers = [logits(len(samplings), seed=step) for step in range(8)]
    draws = [Draw.begin(sampling) for sampling in samplings]
    together = [choose(each, draws) for each in numbers]
    for row, sampling in enumerate(samplings):
        draw = Draw.begin(sampling)
        alone = [choose(each[[row]], [draw])[0] for each in numbers]
        assert [each.token for each in alone] == [each[row].token for each in together]


def test_half_precision_numbers_are_taken_as_they_are():
    numbers = logits(2).bfloat16()
    assert tokens(numbers, [GREEDY, GREEDY]) == numbers.float().argmax(-1).tolist()
