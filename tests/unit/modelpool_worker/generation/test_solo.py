"""Models without a plain attention cache, one text at a time, against the library's own ``generate``."""

import math
from functools import cache

import pytest
import torch
from structlog.testing import capture_logs
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

from modelpool_worker.errors import InferenceFailedError, OutOfMemoryError
from modelpool_worker.generation.prompt import GenerationPrompt
from modelpool_worker.generation.request import Sampling
from modelpool_worker.generation.solo import Solo
from modelpool_worker.generation.vocabulary import Vocabulary
from tiny_models import sliding_decoder, vision_language

pytestmark = pytest.mark.models

KINDS = ["mistral", "gemma3", "lfm2", "mamba"]
GREEDY = Sampling(temperature=0)
TEXT = "what is this? please answer in one sentence, " * 2
TOKENS = 40


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Return model and tokenizer of a kind, loaded by the library."""

    @cache
    def loaded(kind):
        folder = tmp_path_factory.mktemp(kind)
        text_only = kind in KINDS
        (sliding_decoder if text_only else vision_language).build(folder, kind)
        auto = AutoModelForCausalLM if text_only else AutoModelForImageTextToText
        model = auto.from_pretrained(str(folder), dtype=torch.float32, local_files_only=True, use_safetensors=True)
        return model.eval(), AutoTokenizer.from_pretrained(str(folder), local_files_only=True)

    return loaded


def make(model, tokenizer, ends=()):
    return Solo(model, Vocabulary(tokenizer.backend_tokenizer), ends or {tokenizer.eos_token_id})


def prompt(tokenizer, text, sampling=GREEDY, tokens=TOKENS, **changes):
    return GenerationPrompt(tuple(tokenizer(text)["input_ids"]), sampling, tokens, **changes)


def run(solo, prompts):
    """Take turns until every prompt (by key) is answered; return the texts by key, and the keys in order of pieces."""
    texts, order = dict.fromkeys(prompts, ""), []
    open_keys, joins = set(prompts), prompts
    while open_keys:
        for piece in solo.turn(joins, ()):
            assert piece.error is None
            texts[piece.key] += piece.value.text
            order.append(piece.key)
            if piece.last:
                open_keys.remove(piece.key)
        joins = {}
    return texts, order


def generate(model, tokenizer, text, tokens=TOKENS):
    """The library's new tokens and their text."""
    inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    new = model.generate(**inputs, **ends, max_new_tokens=tokens, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    return new.tolist(), tokenizer.decode(new, skip_special_tokens=True)


@pytest.mark.parametrize("kind", [*KINDS, "qwen2_5_vl"])
def test_greedy_text_equals_that_of_generate(load, kind):
    model, tokenizer = load(kind)
    tokens, expected = generate(model, tokenizer, TEXT)
    assert len(set(tokens)) >= 20, "a text that repeats itself would prove nothing"
    texts, order = run(make(model, tokenizer), {7: prompt(tokenizer, TEXT)})
    assert texts == {7: expected}
    assert len(order) == len(tokens), "one token a turn"


def test_the_window_matters_for_the_text_compared():
    """Else a model that forgets nothing would pass as well."""
    assert len(TEXT.split()) > sliding_decoder.WINDOW


def test_padding_tokens_of_a_prompt_are_read_as_any_other(load):
    model, tokenizer = load("mistral")
    marked = tokenizer.pad_token + TEXT
    inputs = tokenizer(marked, return_tensors="pt", return_token_type_ids=False)
    assert inputs["attention_mask"].all()
    assert run(make(model, tokenizer), {1: prompt(tokenizer, marked)})[0][1] == generate(model, tokenizer, marked)[1]


def test_what_the_folder_says_about_generating_changes_nothing(load):
    model, tokenizer = load("mistral")
    model.generation_config.update(do_sample=True, num_return_sequences=3, repetition_penalty=2.0)
    model.generation_config.update(cache_implementation="static", min_length=100, output_hidden_states=True)
    texts = run(make(model, tokenizer), {1: prompt(tokenizer, TEXT)})[0]
    assert texts[1] == generate(model, tokenizer, TEXT)[1]


@pytest.mark.parametrize("kind", ["mistral", "mamba"])
def test_texts_that_join_together_run_one_after_the_other_and_each_as_if_alone(load, kind):
    model, tokenizer = load(kind)
    texts = {1: TEXT, 2: "hello", 3: "a red bridge over the river"}
    answers, order = run(
        make(model, tokenizer), {key: prompt(tokenizer, text, tokens=9) for key, text in texts.items()}
    )
    assert answers == {key: generate(model, tokenizer, text, 9)[1] for key, text in texts.items()}
    assert order == sorted(order)


def test_who_leaves_gives_way_to_the_next_whether_running_or_waiting(load):
    model, tokenizer = load("mistral")
    solo = make(model, tokenizer)
    waiting = {key: prompt(tokenizer, TEXT) for key in (1, 2, 3)}
    assert [piece.key for piece in solo.turn(waiting, ())] == [1]
    assert [piece.key for piece in solo.turn({}, [1, 2])] == [3]
    assert solo.turn({}, [3]) == []


def test_after_a_reset_nothing_is_left(load):
    model, tokenizer = load("gemma3")
    solo = make(model, tokenizer)
    solo.turn({1: prompt(tokenizer, TEXT), 2: prompt(tokenizer, TEXT)}, ())
    solo.reset()
    assert solo.turn({}, ()) == []
    assert run(solo, {3: prompt(tokenizer, TEXT)})[0][3] == generate(model, tokenizer, TEXT)[1]


def test_a_seed_gives_its_text_again_and_another_choice_another(load):
    model, tokenizer = load("mistral")
    drawn = Sampling(temperature=0.9, top_p=0.95, seed=5)
    solo = make(model, tokenizer)
    prompts = {key: prompt(tokenizer, TEXT, drawn, choice=choice) for key, choice in ((1, 0), (2, 0), (3, 1))}
    texts, _order = run(solo, prompts)
    assert texts[1] == texts[2] != texts[3]


def test_it_ends_at_the_stop_string_at_an_end_token_or_at_the_limit(load):
    model, tokenizer = load("mistral")
    tokens, whole = generate(model, tokenizer, TEXT)
    middle = whole[len(whole) // 2 :][:3]
    stopped = run(make(model, tokenizer), {1: prompt(tokenizer, TEXT, Sampling(temperature=0, stop=(middle,)))})[0][1]
    assert stopped == whole[: whole.index(middle)]
    solo = make(model, tokenizer, ends={tokens[5]})
    at = tokens.index(tokens[5])
    joins, finish = {1: prompt(tokenizer, TEXT)}, None
    for _turn in range(at + 1):
        ((_key, delta, last, _error),) = solo.turn(joins, ())
        joins, finish = {}, delta.finish
    assert (last, finish) == (True, "stop")
    ((_key, delta, last, _error),) = solo.turn({2: prompt(tokenizer, TEXT, tokens=1)}, ())
    assert (last, delta.finish) == (True, "length")


@pytest.mark.parametrize("turns", [0, 2], ids=["its first token", "a later one"])
def test_a_text_that_finds_no_memory_ends_with_that_reason_and_the_next_one_runs(load, turns):
    model, tokenizer = load("mistral")
    solo = make(model, tokenizer)
    joins = {1: prompt(tokenizer, TEXT), 2: prompt(tokenizer, TEXT)}
    for _ in range(turns):
        assert not solo.turn(joins, ())[0].last
        joins = {}

    def full(_head, _inputs):
        raise torch.OutOfMemoryError("CUDA out of memory, swordfish")

    hook = model.get_output_embeddings().register_forward_pre_hook(full)
    with capture_logs() as lines:
        ((key, _delta, last, error),) = solo.turn(joins, ())
    hook.remove()
    assert (key, last, type(error)) == (1, True, OutOfMemoryError)
    assert [(line["event"], line["error"]) for line in lines] == [("text failed", "OutOfMemoryError")]
    assert "swordfish" not in f"{error} {lines}"
    assert run(solo, {2: prompt(tokenizer, TEXT)})[0] == {2: generate(model, tokenizer, TEXT)[1]}


def test_numbers_that_are_not_finite_end_the_text_with_an_error_and_the_next_one_runs(load):
    model, tokenizer = load("gemma3")
    solo = make(model, tokenizer)
    head = model.get_output_embeddings()
    broken = head.register_forward_hook(lambda _head, _inputs, output: output * math.nan)
    ((key, _delta, last, error),) = solo.turn({1: prompt(tokenizer, TEXT)}, ())
    broken.remove()
    assert (key, last, type(error)) == (1, True, InferenceFailedError)
    assert run(solo, {2: prompt(tokenizer, TEXT)})[0][2] == generate(model, tokenizer, TEXT)[1]
