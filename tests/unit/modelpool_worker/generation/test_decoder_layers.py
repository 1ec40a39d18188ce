"""The layers of a plain decoder joined to one operation, beside those of transformers."""

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention

from modelpool_worker.capabilities.base import LoadRequest
from modelpool_worker.capabilities.text_to_text import TextToText
from modelpool_worker.generation.decoder_blocks import Past, Sizes, compiled, run_blocks
from modelpool_worker.generation.decoder_layers import DecoderLayers, join_layers
from modelpool_worker.generation.engines import steps_together
from modelpool_worker.generation.request import Sampling, TextRequest
from modelpool_worker.generation.slot_cache import Layer, SlotCache
from modelpool_worker.models.linear import rearranges
from modelpool_worker.models.rearranged import rearrange
from tiny_models import sliding_decoder, text_decoder, vision_language

pytestmark = [
    pytest.mark.models,
    pytest.mark.skipif(not rearranges(torch.float32), reason="this CPU has no order of weights of its own"),
]

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 5,  # more than are calculated at once
    "num_attention_heads": 4,
    "vocab_size": 300,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": 1,
}
GROUPED = SIZES | {"num_key_value_heads": 2}
MADE = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**GROUPED)),
    "llama, biases": lambda: LlamaForCausalLM(LlamaConfig(**GROUPED, attention_bias=True, mlp_bias=True)),
    "llama, no groups": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True)),
    "mistral, no window": lambda: MistralForCausalLM(MistralConfig(**GROUPED, sliding_window=None, head_dim=24)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**GROUPED)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**GROUPED, head_dim=16)),
    "linear rope": lambda: LlamaForCausalLM(
        LlamaConfig(**GROUPED, rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0})
    ),
}


def made(kind, dtype=torch.float32):
    torch.manual_seed(3)
    model = MADE[kind]().to(dtype).eval()
    with torch.no_grad():  # norms of ones and biases of zeros would hide that they are forgotten
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.add_(torch.randn(parameter.shape).mul_(0.3).to(dtype))
    return model


def ids(rows, tokens):
    return torch.tensor([[(7 * row + 3 * place) % 200 for place in range(tokens)] for row in range(rows)])


def portions(model, text, ends):
    """The logits of all tokens of a text that is read in portions up to these ends."""
    past, found, start = DynamicCache(config=model.config), [], 0
    with torch.inference_mode():
        for end in ends:
            places = torch.arange(start, end)[None]
            found.append(model(text[:, start:end], position_ids=places, past_key_values=past, use_cache=True).logits)
            start = end
    return torch.cat(found, dim=1)


def close(found, expected):
    most = {torch.float32: 2e-5, torch.bfloat16: 0.08}[expected.dtype]
    return (found - expected).float().abs().max() <= most * expected.float().abs().max()


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("ends", [[1], [9], [40], [5, 20], [33, 34, 35], [1, 2, 3]], ids=str)
def test_joined_layers_say_what_transformers_says(kind, dtype, ends):
    model, text = made(kind, dtype), ids(1, ends[-1])
    expected = portions(model, text, ends)
    assert join_layers(model)
    assert [type(layer) for layer in model.model.layers] == [DecoderLayers]
    assert close(portions(model, text, ends), expected)


@pytest.mark.parametrize("kind", MADE)
def test_several_texts_at_once_and_no_cache_at_all(kind):
    model, texts = made(kind), ids(3, 21)
    with torch.inference_mode():
        expected = model(texts, use_cache=False).logits
        assert join_layers(model)
        assert close(model(texts, use_cache=False).logits, expected)
        assert close(model(texts).logits, expected)


def test_what_a_mask_hides_is_not_heard():
    model, texts = made("qwen3"), ids(2, 6)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    with torch.inference_mode():
        expected = model(texts, attention_mask=mask).logits
        assert join_layers(model)
        found = model(texts, attention_mask=mask).logits
    assert close(found[0, 2:], expected[0, 2:])
    assert close(found[1], expected[1])


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rows_of_different_lengths_step_together_as_before(kind, dtype):
    lengths = (2, 9, 5)

    def stepped(model):
        slots, found = SlotCache(model.device), []
        with torch.inference_mode():
            for length in lengths:
                past = DynamicCache(config=model.config)
                model(ids(1, length), past_key_values=past, use_cache=True)
                slots.add([Layer(layer.keys, layer.values) for layer in past.layers], 40)
            for step in range(4):
                places, mask = slots.begin_step()
                given = torch.tensor([[(11 * row + step) % 200] for row in range(len(lengths))])
                view = slots.view
                output = model(given, position_ids=places, attention_mask=mask, past_key_values=view, use_cache=True)
                found.append(output.logits)
        return torch.cat(found)

    model = made(kind, dtype)
    expected = stepped(model)
    assert join_layers(model)
    assert close(stepped(model), expected)
    assert steps_together(model)


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_greedy_text_is_that_of_generate(tmp_path, kind):
    text_decoder.build(tmp_path, kind)
    model = AutoModelForCausalLM.from_pretrained(str(tmp_path), dtype=torch.float32, local_files_only=True).eval()
    expected = model.generate(ids(1, 12), max_new_tokens=40, do_sample=False)
    assert join_layers(model)
    assert torch.equal(model.generate(ids(1, 12), max_new_tokens=40, do_sample=False), expected)


def test_of_a_joined_model_nothing_is_left_in_the_file(tmp_path):
    made("qwen2").save_pretrained(str(tmp_path))
    model = AutoModelForCausalLM.from_pretrained(str(tmp_path), local_files_only=True).eval()
    assert str(tmp_path) in Path("/proc/self/maps").read_text()
    assert join_layers(model)
    assert rearrange(model, lambda each: each(ids(1, 3)).logits)
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    assert not [name for name, _ in model.named_parameters() if ".layers." in name]


@pytest.mark.parametrize("kind", ["mistral", "gemma3", "lfm2", "mamba"])
def test_other_decoders_stay_as_they_are(tmp_path, kind):
    sliding_decoder.build(tmp_path, kind)
    model = AutoModelForCausalLM.from_pretrained(str(tmp_path), dtype=torch.float32, local_files_only=True).eval()
    before = [type(module) for module in model.modules()]
    assert join_layers(model)
    assert [type(module) for module in model.modules()] == before


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "gelu"},
        {"sliding_window": 4},
        {"layer_types": ["full_attention", "sliding_attention", "full_attention"]},
        {"attention_chunk_size": 4},
    ],
    ids=["another activation", "a window", "some layers with a window", "attention in chunks"],
)
def test_what_the_config_says_otherwise_stays_as_it_is(change):
    model = made("llama")
    for name, value in change.items():
        setattr(model.config, name, value)
    assert join_layers(model)
    assert len(model.model.layers) == 5


def test_a_vocabulary_too_small_to_be_tried_out_stays_as_it_is():
    model = LlamaForCausalLM(LlamaConfig(**GROUPED | {"vocab_size": 5})).eval()
    assert join_layers(model)
    assert len(model.model.layers) == 5


def test_another_format_stays_as_it_is():
    model = made("llama", torch.float16)
    assert join_layers(model)
    assert len(model.model.layers) == 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("wrong", ["other numbers", "a first token that is far larger", "cannot be joined"])
def test_a_model_that_calculates_otherwise_has_to_be_loaded_again(monkeypatch, wrong, dtype):
    model = made("qwen3", dtype)
    if wrong == "cannot be joined":
        model.config.num_attention_heads = 3
    else:
        otherwise(monkeypatch)
    if wrong == "a first token that is far larger":
        norm = model.model.norm
        norm.register_forward_hook(lambda _norm, _given, made: torch.cat((made[:, :1] * 1000, made[:, 1:]), dim=1))
    assert not join_layers(model)


def test_a_decoder_that_calculates_otherwise_is_loaded_again_and_serves(monkeypatch, tmp_path):
    otherwise(monkeypatch)
    text_decoder.build(tmp_path, "qwen3")
    prompt = tuple(ids(1, 12)[0].tolist())
    library = AutoModelForCausalLM.from_pretrained(str(tmp_path), dtype=torch.float32, local_files_only=True).eval()
    expected = library.generate(torch.tensor([prompt]), max_new_tokens=20, do_sample=False)[0, len(prompt) :]
    model = TextToText()
    model.load(LoadRequest(folder=tmp_path, source="file:///m", dtype="float32", gpus=0, threads=1))
    (prepared,) = model.prepare([TextRequest(prompt=prompt, sampling=Sampling(temperature=0, max_tokens=20))])
    pieces = model.turn({1: prepared.value}, ())
    while not pieces[-1].last:
        pieces += model.turn({}, ())
    model.unload()
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path), local_files_only=True)
    said = "".join(piece.value.text for piece in pieces)
    assert said == tokenizer.decode(expected, skip_special_tokens=True)


def otherwise(monkeypatch):
    """Have transformers calculate the attention of Qwen 3 in another way."""
    before = Qwen3Attention.forward
    monkeypatch.setattr(Qwen3Attention, "forward", lambda *args, **kwargs: _doubled(before(*args, **kwargs)))


def _doubled(output):
    return (output[0] * 2, *output[1:])


@pytest.mark.parametrize("kind", ["idefics3", "llava"])
def test_the_decoder_of_a_model_that_sees_is_joined_too(tmp_path, kind):
    vision_language.build(tmp_path, kind)
    model = AutoModelForImageTextToText.from_pretrained(str(tmp_path), dtype=torch.float32).eval()
    with torch.inference_mode():
        expected = model(ids(1, 9)).logits
        assert join_layers(model)
        assert isinstance(model.get_decoder().layers, nn.ModuleList)
        assert len(model.get_decoder().layers) == 1
        assert close(model(ids(1, 9)).logits, expected)


@pytest.mark.parametrize("steps", [False, True], ids=["reads", "steps"])
def test_compiled_or_not_the_layers_give_the_same(steps):
    model = made("qwen2")
    join_layers(model)
    layers = model.model.layers[0]
    assert isinstance(compiled(), torch.jit.ScriptFunction)
    sizes = Sizes(4, 2, 1e-6)
    tokens = 1 if steps else 7

    def run(blocks):
        torch.manual_seed(5)
        keys, values = ([torch.randn(2, 2, 9, 16) for _layer in range(5)] for _kind in range(2))
        past = Past(keys, values, torch.tensor([3, 6]) if steps else None, 7)
        rotation = (torch.rand(2, tokens, 16), torch.rand(2, tokens, 16))
        mask = torch.zeros(2, 1, tokens, 7 if steps else 9 + tokens)
        return *blocks(torch.randn(2, tokens, 64), layers._weights, sizes, past, rotation, mask, 2), past

    with torch.inference_mode():
        for _time in range(3):  # what is compiled changes with its first uses
            (one, *ones, one_past), (other, *others, other_past) = run(compiled()), run(run_blocks)
            assert torch.equal(one, other)
            assert [len(each) for each in ones] == [0 if steps else 5] * 2
            held, expected = (
                [*left[0], *left[1], *past.keys, *past.values]
                for left, past in ((ones, one_past), (others, other_past))
            )
            assert all(torch.equal(mine, theirs) for mine, theirs in zip(held, expected, strict=True))
