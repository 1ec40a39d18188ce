"""Rows that join, step and leave, against the library's own ``generate`` on the same folder."""

import copy
import dataclasses
import random
from functools import cache

import pytest
import torch
from structlog.testing import capture_logs
from transformers import AutoModelForCausalLM, AutoTokenizer

from modelpool_worker.errors import InferenceFailedError, OutOfMemoryError
from modelpool_worker.generation import rows as rows_module
from modelpool_worker.generation import slot_cache
from modelpool_worker.generation.prompt import GenerationPrompt
from modelpool_worker.generation.request import Sampling
from modelpool_worker.generation.rows import Rows
from modelpool_worker.generation.vocabulary import Vocabulary
from tiny_models import text_decoder

pytestmark = pytest.mark.models

GREEDY = Sampling(temperature=0)
TEXTS = [
    "hello world",
    "the cat is late tomorrow morning, under the bridge over the river, because it shows what colour it is",
    "a",
    "describe this picture, please, in one sentence",
    "Größe 東京 🚀",
    " ".join(f"{word} river {number}" for number, word in enumerate(["red", "blue", "cat", "dog", "square"] * 3)),
    "what",
    "answer shortly and in one sentence because it is late",
]
TOKENS = 48


@pytest.fixture(scope="module", params=["qwen3", "llama"])
def loaded(request, tmp_path_factory):
    """Model and tokenizer of a kind, loaded by the library."""
    torch.set_num_threads(1)  # more only get into each other's way in a model this small
    folder = tmp_path_factory.mktemp(request.param)
    text_decoder.build(folder, request.param)
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32, local_files_only=True)
    return model.eval(), AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


@pytest.fixture(scope="module")
def generate(loaded):
    """The library's greedy text and the ids of its tokens."""
    model, tokenizer = loaded

    @cache
    def generated(text, tokens=TOKENS):
        inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
        new = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        return tokenizer.decode(new, skip_special_tokens=True), new.tolist()

    return generated


@pytest.fixture
def rows(loaded):
    return make(loaded)


def make(loaded, model=None, **changes):
    return Rows(model or loaded[0], Vocabulary(loaded[1].backend_tokenizer), {loaded[1].eos_token_id}, **changes)


def prompt(loaded, text, sampling=GREEDY, tokens=TOKENS, **changes):
    return GenerationPrompt(tuple(loaded[1](text)["input_ids"]), sampling, tokens, **changes)


class Watch:
    """Takes turns and keeps what came of them by key."""

    def __init__(self, rows):
        self.rows = rows
        self.deltas = {}
        self.open = set()
        self.errors = {}

    def turn(self, joins=None, leaves=()):
        self.open = (self.open | set(joins or {})) - set(leaves)
        pieces = self.rows.turn(joins or {}, leaves)
        for piece in pieces:
            assert piece.key in self.open
            if piece.error is not None:
                self.errors[piece.key] = piece.error
            else:
                self.deltas.setdefault(piece.key, []).append(piece.value)
                assert piece.last == (piece.value.finish is not None)
            if piece.last:
                self.open.remove(piece.key)
        return pieces

    def run(self, joins=None):
        self.turn(joins)
        while self.open:
            self.turn()
        return self

    def text(self, key):
        return "".join(delta.text for delta in self.deltas[key])

    def finish(self, key):
        return self.deltas[key][-1].finish


def test_the_texts_compared_are_varied(generate):
    for text in TEXTS:
        assert len(set(generate(text)[1])) >= 20, text
    assert len({generate(text)[0] for text in TEXTS}) == len(TEXTS)


def test_greedy_text_equals_that_of_generate_alone_and_together(loaded, generate):
    for text in TEXTS:
        assert Watch(make(loaded)).run({1: prompt(loaded, text)}).text(1) == generate(text)[0]
    together = Watch(make(loaded)).run({key: prompt(loaded, text) for key, text in enumerate(TEXTS)})
    assert [together.text(key) for key in range(len(TEXTS))] == [generate(text)[0] for text in TEXTS]
    assert {together.finish(key) for key in range(len(TEXTS))} == {"length"}
    assert [sum(delta.tokens for delta in together.deltas[key]) for key in range(len(TEXTS))] == [TOKENS] * len(TEXTS)


@pytest.mark.parametrize("read_tokens", [1, 7, 64], ids=lambda count: f"{count} tokens a turn")
def test_prompts_read_in_pieces_change_nothing(loaded, generate, read_tokens):
    watch = Watch(make(loaded, read_tokens=read_tokens))
    joins = {key: prompt(loaded, text) for key, text in enumerate(TEXTS)}
    watch.run(joins)
    assert [watch.text(key) for key in joins] == [generate(text)[0] for text in TEXTS]


def test_running_rows_step_while_a_long_prompt_is_read(loaded, generate):
    watch = Watch(make(loaded, read_tokens=12))
    watch.turn({1: prompt(loaded, "hello world")})
    long = prompt(loaded, TEXTS[5])
    turns = -(-len(long.ids) // 12)
    assert turns > 4
    keys = [{piece.key for piece in watch.turn({2: long} if turn == 0 else {})} for turn in range(turns)]
    assert keys == [{1}] * (turns - 1) + [{1, 2}]
    watch.run()
    assert [watch.text(1), watch.text(2)] == [generate("hello world")[0], generate(TEXTS[5])[0]]


def test_rows_that_join_later_and_neighbours_that_leave_change_nothing(loaded, generate):
    watch = Watch(make(loaded))
    for key, text in enumerate(TEXTS):
        watch.turn({key: prompt(loaded, text)}, leaves=[key - 2] if key in (2, 5) else [])
        watch.turn()
        watch.turn()
    watch.run()
    stayed = [key for key in range(len(TEXTS)) if key not in (0, 3)]
    assert [watch.text(key) for key in stayed] == [generate(TEXTS[key])[0] for key in stayed]
    assert len(watch.deltas[0]) < TOKENS > len(watch.deltas[3])


@pytest.mark.parametrize("read_tokens", [3, 512], ids=["while it is read", "while it runs"])
def test_a_row_that_leaves_says_nothing_more_and_its_place_is_free(loaded, generate, read_tokens):
    watch = Watch(make(loaded, read_tokens=read_tokens))
    watch.turn({1: prompt(loaded, TEXTS[1])})
    watch.turn(leaves=[1])
    assert watch.turn() == []
    assert watch.run({2: prompt(loaded, TEXTS[2])}).text(2) == generate(TEXTS[2])[0]


def test_an_unknown_row_may_leave(loaded, rows):
    assert rows.turn({}, [99]) == []


def test_choices_of_one_prompt_differ_by_their_seed_and_equal_those_alone(loaded):
    ids = prompt(loaded, TEXTS[3]).ids
    sampling = Sampling(seed=7)
    choices = [GenerationPrompt(ids, sampling, TOKENS, choice) for choice in range(4)]
    alone = [Watch(make(loaded)).run({1: each}).text(1) for each in choices]
    watch = Watch(make(loaded, read_tokens=5)).run(dict(enumerate(choices)))
    assert [watch.text(key) for key in range(4)] == alone
    assert len(set(alone)) == 4


def test_a_choice_that_leaves_does_not_take_the_others_with_it(loaded, generate):
    ids = prompt(loaded, TEXTS[3]).ids
    watch = Watch(make(loaded, read_tokens=5))
    watch.turn({choice: GenerationPrompt(ids, GREEDY, TOKENS, choice) for choice in range(3)})
    watch.turn(leaves=[0])
    watch.run()
    assert [watch.text(1), watch.text(2)] == [generate(TEXTS[3])[0]] * 2


SAMPLINGS = [
    Sampling(seed=1),
    Sampling(seed=2, temperature=0.6),
    Sampling(seed=3, top_p=0.8),
    Sampling(seed=4, presence_penalty=1.5, frequency_penalty=0.5),
    GREEDY,
    Sampling(temperature=0, frequency_penalty=1.0),
    Sampling(seed=5, temperature=1.5, top_p=0.95, top_logprobs=3),
]


def test_sampled_text_is_the_same_alone_and_among_others(loaded):
    joins = {key: prompt(loaded, TEXTS[key], sampling) for key, sampling in enumerate(SAMPLINGS)}
    alone = [Watch(make(loaded)).run({key: each}).text(key) for key, each in joins.items()]
    watch = Watch(make(loaded))
    for key, each in joins.items():
        watch.turn({key: each})
    watch.run()
    assert [watch.text(key) for key in joins] == alone


def tokens_of(loaded, text, sampling):
    """The tokens written, told by their bytes; logprobs say them one by one."""
    watch = Watch(make(loaded)).run({1: prompt(loaded, text, dataclasses.replace(sampling, top_logprobs=0))})
    return [each.data for delta in watch.deltas[1] for each in delta.logprobs]


@pytest.mark.parametrize("name", ["frequency_penalty", "presence_penalty"])
def test_penalties_make_a_text_repeat_itself_less_and_below_zero_more(loaded, name):
    different = {
        penalty: sum(
            len(set(tokens_of(loaded, text, Sampling(temperature=0, **{name: penalty})))) for text in TEXTS[:4]
        )
        for penalty in (-2.0, 0.0, 2.0)
    }
    print(different)
    assert different[-2.0] < different[0.0] < different[2.0]


def test_logprobs_are_those_of_the_model(loaded, generate):
    model, tokenizer = loaded
    text = TEXTS[3]
    watch = Watch(make(loaded)).run({1: prompt(loaded, text, Sampling(temperature=0, top_logprobs=4))})
    ids, new = tokenizer(text)["input_ids"], generate(text)[1]
    with torch.no_grad():
        normal = model(torch.tensor([ids + new])).logits[0, len(ids) - 1 : -1].log_softmax(-1)
    said = [each for delta in watch.deltas[1] for each in delta.logprobs]
    assert len(said) == len(new)
    for token, each, expected in zip(new, said, normal, strict=True):
        assert each.logprob == pytest.approx(float(expected[token]), abs=1e-3)
        assert [top.logprob for top in each.top] == pytest.approx(expected.topk(4).values.tolist(), abs=1e-3)
        assert each.data == each.top[0].data
        assert each.text == each.data.decode(errors="replace")
    assert b"".join(each.data for each in said).decode(errors="replace") == watch.text(1)


def test_a_text_ends_before_its_stop_string(loaded, generate):
    whole = generate(TEXTS[0])[0]
    stop = whole[len(whole) // 2 : len(whole) // 2 + 3]
    watch = Watch(make(loaded)).run({1: prompt(loaded, TEXTS[0], Sampling(temperature=0, stop=("@@@", stop)))})
    assert watch.text(1) == whole[: whole.index(stop)]
    assert watch.finish(1) == "stop"
    assert sum(delta.tokens for delta in watch.deltas[1]) < TOKENS


def test_a_stop_string_that_never_comes_takes_nothing_away(loaded, generate):
    whole = generate(TEXTS[0])[0]
    watch = Watch(make(loaded)).run({1: prompt(loaded, TEXTS[0], Sampling(temperature=0, stop=(whole[-1:] + "@",)))})
    assert watch.text(1) == whole
    assert watch.finish(1) == "length"


def test_a_token_that_ends_texts_ends_it_and_is_no_part_of_it(loaded, generate):
    new = generate(TEXTS[0])[1]
    end = new[TOKENS // 2]
    before = new[: new.index(end)]
    rows = Rows(loaded[0], Vocabulary(loaded[1].backend_tokenizer), {end, 10_000})
    watch = Watch(rows).run({1: prompt(loaded, TEXTS[0], Sampling(temperature=0, top_logprobs=0))})
    assert watch.text(1) == loaded[1].decode(before, skip_special_tokens=True)
    assert watch.finish(1) == "stop"
    assert sum(delta.tokens for delta in watch.deltas[1]) == len(before) + 1
    assert sum(len(delta.logprobs) for delta in watch.deltas[1]) == len(before)


@pytest.mark.parametrize("tokens", [1, 2])
def test_the_shortest_answers_end_at_their_length(loaded, generate, tokens):
    watch = Watch(make(loaded)).run({key: prompt(loaded, text, tokens=tokens) for key, text in enumerate(TEXTS)})
    assert [watch.text(key) for key in range(len(TEXTS))] == [generate(text, tokens)[0] for text in TEXTS]
    assert {len(deltas) for deltas in watch.deltas.values()} == {tokens}


@pytest.fixture(scope="module")
def poisoned(loaded, generate):
    """A model that calculates no finite numbers once it has seen one token, which the other texts do not have."""
    known = {token for text in TEXTS for token in [*generate(text)[1], *loaded[1](text)["input_ids"]]}
    token = next(token for token in range(50, 400) if token not in known)
    model = copy.deepcopy(loaded[0])
    with torch.no_grad():
        model.get_input_embeddings().weight[token] = torch.nan
    return model, token


def test_a_row_that_cannot_go_on_fails_alone(loaded, poisoned, generate):
    """Its neighbours go on, and who gets its place later meets nothing of it."""
    model, token = poisoned
    bad = GenerationPrompt((*range(40), token, 5), GREEDY, TOKENS)
    watch = Watch(make(loaded, model=model))
    watch.turn({0: prompt(loaded, TEXTS[0]), 1: bad, 2: prompt(loaded, TEXTS[2])})
    watch.turn({3: bad})
    watch.run({4: prompt(loaded, TEXTS[4])})
    assert [watch.text(key) for key in (0, 2, 4)] == [generate(TEXTS[key])[0] for key in (0, 2, 4)]
    assert set(watch.errors) == {1, 3}
    assert {type(error) for error in watch.errors.values()} == {InferenceFailedError}
    assert all("not finite" in str(error) for error in watch.errors.values())


def test_a_row_that_fails_in_the_middle_leaves_nothing_behind(loaded, generate):
    """A shorter row gets its place: beyond its end there is nothing of the one before, where nobody should look."""
    watch = Watch(make(loaded))
    watch.turn({0: prompt(loaded, TEXTS[0]), 1: prompt(loaded, TEXTS[1])})
    with torch.inference_mode():
        for layer in watch.rows._cache._layers:
            layer.keys[1, :, 4:20] = torch.inf
    watch.run({2: prompt(loaded, TEXTS[2])})
    assert set(watch.errors) == {1}
    assert [watch.text(key) for key in (0, 2)] == [generate(TEXTS[key])[0] for key in (0, 2)]


def trips():
    raise ValueError("swordfish")


def gpu_is_full():
    raise torch.OutOfMemoryError("CUDA out of memory, swordfish")


@pytest.mark.parametrize(
    ("happens", "kind", "code", "logged"),
    [
        pytest.param(lambda: torch.empty(10**15), OutOfMemoryError, "out_of_memory", "RuntimeError", id="torch, CPU"),
        pytest.param(gpu_is_full, OutOfMemoryError, "out_of_memory", "OutOfMemoryError", id="torch, GPU"),
        pytest.param(lambda: bytearray(10**15), OutOfMemoryError, "out_of_memory", "MemoryError", id="python"),
        pytest.param(trips, InferenceFailedError, "inference_failed", "ValueError", id="anything else"),
    ],
)
def test_a_prompt_that_the_model_cannot_read_fails_alone(loaded, generate, happens, kind, code, logged):
    """Its client is told no memory from anything else, and neither from numbers that are not finite."""

    def meet(_module, inputs):
        if inputs[0].shape[1] == 2:
            happens()

    broken = loaded[0].get_input_embeddings().register_forward_pre_hook(meet)
    watch = Watch(make(loaded))
    with capture_logs() as lines:
        watch.run({0: prompt(loaded, TEXTS[0]), 1: GenerationPrompt((5, 6), GREEDY, TOKENS)})
    broken.remove()
    assert watch.text(0) == generate(TEXTS[0])[0]
    (error,) = watch.errors.values()
    assert (type(error), error.code, error.status) == (kind, code, 500)
    assert ("memory" in str(error)) == (kind is OutOfMemoryError)
    assert "not finite" not in str(error)
    assert [(line["event"], line["error"]) for line in lines] == [("prompt failed", logged)]
    assert "swordfish" not in f"{error} {lines}"


@pytest.mark.parametrize("tensors", range(4), ids=["at once", "half of a layer", "in the next layer", "at the last"])
@pytest.mark.parametrize("beside", [True, False], ids=["beside others", "alone"])
def test_a_prompt_that_finds_no_room_in_the_cache_fails_alone(loaded, generate, monkeypatch, tensors, beside):
    """Memory ends while room is made for it, layer by layer: what was made already harms nobody."""
    rows, moved, made = make(loaded), slot_cache._moved, []
    watch = Watch(rows)
    if beside:
        watch.turn({0: prompt(loaded, TEXTS[0])})
        watch.turn()

    def full(*given):
        if len(made) == tensors:
            raise torch.OutOfMemoryError("CUDA out of memory, swordfish")
        made.append(given)
        return moved(*given)

    monkeypatch.setattr(slot_cache, "_moved", full)
    with capture_logs() as lines:
        watch.turn({1: prompt(loaded, TEXTS[1])})
    monkeypatch.undo()
    assert type(watch.errors[1]) is OutOfMemoryError
    assert [(line["event"], line["error"]) for line in lines] == [("prompt failed", "OutOfMemoryError")]
    watch.run({2: prompt(loaded, TEXTS[3])})
    assert [watch.text(key) for key in ((0, 2) if beside else (2,))] == [
        generate(text)[0] for text in (TEXTS[0], TEXTS[3])[not beside :]
    ]
    assert rows._cache.rows == 0


def test_a_first_token_that_finds_no_memory_fails_its_prompt_alone(loaded, generate, monkeypatch):
    watch = Watch(make(loaded))
    watch.turn({0: prompt(loaded, TEXTS[0])})
    choose, calls = rows_module.choose, []

    def full(logits, draws):
        calls.append(draws)
        if len(calls) == 2:  # after the step of the row that is there
            raise torch.OutOfMemoryError("CUDA out of memory")
        return choose(logits, draws)

    monkeypatch.setattr(rows_module, "choose", full)
    watch.turn({1: prompt(loaded, TEXTS[1])})
    watch.run()
    assert type(watch.errors[1]) is OutOfMemoryError
    assert watch.text(0) == generate(TEXTS[0])[0]


def test_reset_drops_every_row(loaded, generate):
    watch = Watch(make(loaded, read_tokens=20))
    watch.turn({key: prompt(loaded, text) for key, text in enumerate(TEXTS)})
    watch.rows.reset()
    assert watch.rows.turn({}, ()) == []
    assert watch.rows.turn({}, [0]) == []
    assert Watch(watch.rows).run({0: prompt(loaded, TEXTS[1])}).text(0) == generate(TEXTS[1])[0]


def test_rows_at_random_equal_those_alone(loaded):
    """They join, leave and end at random; whoever stays to the end says what it says alone."""
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    watch, prompts, left = Watch(make(loaded, read_tokens=rng.choice([12, 40, 500]))), {}, set()
    for turn in range(150):
        joins = {}
        for _ in range(rng.choice([0, 0, 1, 1]) if len(watch.open) < 9 else 0):
            ids = tuple(rng.randrange(3, 250) for _ in range(rng.randrange(1, 60)))
            sampling = rng.choice([GREEDY, Sampling(seed=turn), Sampling(seed=turn, top_p=0.9, frequency_penalty=0.3)])
            key = len(prompts)
            prompts[key] = joins[key] = GenerationPrompt(ids, sampling, rng.randrange(1, 50))
        leaves = {key for key in watch.open if rng.random() < 0.02}
        left |= leaves
        watch.turn(joins, leaves)
    watch.run()
    stayed = [key for key in prompts if key not in left]
    assert len(stayed) > 20
    assert left
    for key in stayed:
        assert watch.text(key) == Watch(make(loaded)).run({0: prompts[key]}).text(0), key


def test_the_cache_has_room_for_its_rows_and_little_more(loaded):
    rows = make(loaded)
    watch = Watch(rows)
    most = 0
    for key in range(12):
        watch.turn({key: prompt(loaded, TEXTS[key % len(TEXTS)], tokens=10 + 3 * key)})
        if rows._cache.rows:
            held = rows._cache._layers[0].keys.shape
            longest = max(rows._cache._finals)
            assert held[0] <= rows._cache.rows * 1.25 or held[0] <= most
            assert held[2] <= max(longest, most)
            most = max(most, held[0], held[2])
    watch.run()
    assert rows._cache._layers == [], "memory is given back once nothing runs"
