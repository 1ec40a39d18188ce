"""Rows in bfloat16: what neighbours may change is rounding, and a text only where two tokens are as likely by it."""

import dataclasses

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from modelpool_worker.generation.prompt import GenerationPrompt
from modelpool_worker.generation.request import Sampling
from modelpool_worker.generation.rows import Rows
from modelpool_worker.generation.sampler import Draw, choose
from modelpool_worker.generation.vocabulary import Vocabulary
from tiny_models import text_decoder

pytestmark = pytest.mark.models

TOKENS = 40
TEXTS = [
    "hello world",
    "the cat is late tomorrow morning, under the bridge over the river, because it shows what colour it is",
    "a",
    "describe this picture, please, in one sentence",
    "Größe 東京 🚀",
    "answer shortly and in one sentence because it is late",
]
#: bfloat16 has 8 bits: logits of 4 to 8 are rounded to multiples of 1/32, and a few such steps add up.
ROUNDING = 0.125


@pytest.fixture(scope="module", params=["qwen3", "llama"])
def loaded(request, tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp(request.param)
    text_decoder.build(folder, request.param)
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.bfloat16, local_files_only=True)
    return model.eval(), AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


def write(loaded, texts, samplings):
    """Write a text for each, all together; return the described tokens of each."""
    model, tokenizer = loaded
    rows = Rows(model, Vocabulary(tokenizer.backend_tokenizer), ())
    joins = {
        key: GenerationPrompt(tuple(tokenizer(text)["input_ids"]), sampling, TOKENS)
        for key, (text, sampling) in enumerate(zip(texts, samplings, strict=True))
    }
    said, running = [[] for _ in joins], set(joins)
    while running:
        for piece in rows.turn(joins, ()):
            said[piece.key] += piece.value.logprobs
            if piece.last:
                running.remove(piece.key)
        joins = {}
    return said


def test_greedy_text_with_neighbours_is_that_alone_until_two_tokens_are_as_likely(loaded):
    greedy = Sampling(temperature=0, top_logprobs=2)
    together = write(loaded, TEXTS, [greedy] * len(TEXTS))
    same = 0
    for text, beside in zip(TEXTS, together, strict=True):
        (alone,) = write(loaded, [text], [greedy])
        for one, other in zip(alone, beside, strict=True):
            if one.data != other.data:
                assert one.top[0].logprob - one.top[1].logprob <= ROUNDING
                break
            assert one.logprob == pytest.approx(other.logprob, abs=ROUNDING)
            same += 1
    assert same > len(TEXTS) * TOKENS / 2, "texts that part at once would have compared nothing"


@pytest.mark.parametrize(
    "sampling",
    [Sampling(temperature=0), Sampling(seed=5), Sampling(seed=5, top_p=0.9)],
    ids=["greedy", "drawn", "nucleus"],
)
def test_the_first_token_is_exactly_that_alone(loaded, sampling):
    """Every prompt is read alone, and a seed's first number is drawn by nobody else."""
    described = dataclasses.replace(sampling, top_logprobs=3)
    together = write(loaded, TEXTS, [described] * len(TEXTS))
    assert [beside[0] for beside in together] == [write(loaded, [text], [described])[0][0] for text in TEXTS]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_the_same_numbers_and_seed_give_the_same_token_whoever_else_draws(dtype):
    numbers = (torch.randn(8, 1500, generator=torch.Generator().manual_seed(3)) * 3).to(dtype)
    samplings = [Sampling(seed=seed, top_p=top_p) for seed in range(4) for top_p in (1.0, 0.9)]
    for _ in range(20):
        draws = [Draw.begin(sampling) for sampling in samplings]
        together = choose(numbers, draws)
        alone = [choose(numbers[row : row + 1], [Draw.begin(each)])[0] for row, each in enumerate(samplings)]
        assert together == alone
        samplings = [Sampling(seed=(each.seed or 0) + 100, top_p=each.top_p) for each in samplings]
