"""Which models step together and which one by one, and what fits into memory."""

from functools import cache

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from modelpool_worker.generation.engines import find_cells, find_context, find_ends, make_engine, steps_together
from modelpool_worker.generation.rows import Rows
from modelpool_worker.generation.solo import Solo
from modelpool_worker.generation.vocabulary import Vocabulary
from modelpool_worker.models.memory import free_bytes
from tiny_models import sliding_decoder, text_decoder
from tiny_models.byte_level import byte_level

pytestmark = pytest.mark.models

WIDE = {"initializer_range": 0.2, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1, "vocab_size": 300}
LLAMA = WIDE | {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
MADE = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(n_embd=64, n_layer=2, n_head=4, n_positions=64, **WIDE)),
    "opt": lambda: OPTForCausalLM(
        OPTConfig(hidden_size=64, ffn_dim=96, num_hidden_layers=2, num_attention_heads=4, **WIDE | {"init_std": 0.2})
    ),
    "bloom": lambda: BloomForCausalLM(BloomConfig(hidden_size=64, n_layer=2, n_head=4, **WIDE)),
    "rope of the longest": lambda: LlamaForCausalLM(
        LlamaConfig(**LLAMA, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0})
    ),
}


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    @cache
    def loaded(kind):
        torch.set_num_threads(1)
        torch.manual_seed(1)
        if kind in MADE:
            return MADE[kind]().eval()
        folder = tmp_path_factory.mktemp(kind)
        (text_decoder if kind in ("qwen3", "llama") else sliding_decoder).build(folder, kind)
        return AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32, local_files_only=True).eval()

    return loaded


@pytest.mark.parametrize("kind", ["qwen3", "llama", "gpt2", "opt"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_models_with_a_plain_attention_cache_step_together(load, kind, dtype):
    model = load(kind)
    model.to(dtype)
    try:
        assert steps_together(model)
    finally:
        model.to(torch.float32)


@pytest.mark.parametrize("kind", ["mistral", "gemma3", "lfm2", "mamba", "bloom", "rope of the longest"])
def test_other_models_go_one_by_one(load, kind):
    assert not steps_together(load(kind))


def test_what_calculates_other_numbers_together_goes_one_by_one(load):
    """A model whose own positions, not ours, decide: found by comparing, whatever its config says."""
    model = load("gpt2")
    table = model.transformer.wpe.forward
    model.transformer.wpe.forward = lambda positions: table(torch.arange(positions.shape[-1])[None])
    try:
        assert not steps_together(model)
    finally:
        model.transformer.wpe.forward = table


def test_the_engine_says_what_rows_it_takes(load):
    vocabulary = Vocabulary(byte_level().backend_tokenizer)
    together = make_engine(load("qwen3"), vocabulary, {1})
    assert isinstance(together.rows, Rows)
    assert (together.context_tokens, together.max_items) == (text_decoder.CONTEXT, None)
    assert together.max_tokens > text_decoder.CONTEXT
    alone = make_engine(load("mistral"), vocabulary, {1})
    assert isinstance(alone.rows, Solo)
    assert alone.max_items == 1
    assert isinstance(make_engine(load("qwen3"), vocabulary, {1}, alone=True).rows, Solo)


def test_the_cache_takes_a_share_of_the_free_memory(load):
    """2 layers × 2 heads × 16 numbers × keys and values × 4 bytes a token."""
    free = free_bytes(torch.device("cpu"))
    assert find_cells(load("qwen3")) == pytest.approx(free * 0.4 / (2 * 2 * 16 * 2 * 4), rel=0.2)


def test_a_recurrent_model_needs_no_memory_per_token(load):
    assert find_cells(load("mamba")) is None


@pytest.mark.parametrize(
    ("said", "context"),
    [({"max_position_embeddings": 512}, 512), ({"max_position_embeddings": 10_000_000}, 131_072)],
    ids=["as the model says", "never more than ours"],
)
def test_how_long_a_text_may_be(said, context):
    assert find_context(LlamaConfig(**LLAMA, **said)) == context


def test_how_long_a_text_may_be_where_the_model_does_not_say():
    assert find_context(BloomConfig(hidden_size=64, n_layer=2, n_head=4)) == 2048


@pytest.mark.parametrize(
    ("by_model", "ends"), [(None, {402}), (7, {7, 402}), ([7, 8], {7, 8, 402}), ([402], {402})], ids=str
)
def test_the_tokens_that_end_a_text(load, by_model, ends):
    model = load("qwen3")
    before = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = by_model
    try:
        assert find_ends(model, byte_level()) == ends
    finally:
        model.generation_config.eos_token_id = before
