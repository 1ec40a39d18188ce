"""Weights as they come: tied, without their prefix, or in many parts that the library makes one of."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
)

from modelpool_worker.errors import NeverLoadsError
from modelpool_worker.models import model_files
from modelpool_worker.models.pretrained import build_skeleton, check_weights, load_model, read_config
from tiny_models.byte_level import byte_level

pytestmark = pytest.mark.models

ENDS = {"vocab_size": 403, "bos_token_id": None, "eos_token_id": 402, "pad_token_id": 400}
SIZES = ENDS | {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
GPT2 = GPT2Config(n_embd=32, n_layer=2, n_head=4, **ENDS)
MADE = {
    "head tied to the embeddings": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True)),
    "experts": lambda: MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=4, sliding_window=None)),
    "fused projections": lambda: Phi3ForCausalLM(Phi3Config(**SIZES)),
    "a name of its own for the trunk": lambda: GPT2LMHeadModel(GPT2),
}


def save(model, folder):
    model.save_pretrained(str(folder))
    byte_level().save_pretrained(str(folder))


def load(folder):
    files = model_files.check(folder, "file:///m")
    config = read_config(files)
    check_weights(build_skeleton(AutoModelForCausalLM, config, files), files)
    return load_model(AutoModelForCausalLM, config, files, torch.float32, torch.device("cpu"))


def numbers(model):
    with torch.no_grad():
        return model(input_ids=torch.tensor([[5, 6, 7, 8]])).logits


@pytest.mark.parametrize("kind", MADE)
def test_weights_are_checked_and_loaded_as_the_library_names_them(kind, tmp_path):
    model = MADE[kind]().eval()
    save(model, tmp_path)
    assert torch.allclose(numbers(load(tmp_path)), numbers(model), atol=1e-5)


def test_weights_saved_without_their_prefix(tmp_path):
    model = GPT2LMHeadModel(GPT2).eval()
    save(model, tmp_path)
    path = tmp_path / "model.safetensors"
    save_file(
        {name.removeprefix("transformer."): each for name, each in load_file(path).items()}, path, {"format": "pt"}
    )
    assert torch.allclose(numbers(load(tmp_path)), numbers(model), atol=1e-5)


def refused(folder):
    with pytest.raises(NeverLoadsError) as caught:
        load(folder)
    return str(caught.value)


def test_more_experts_than_there_are_weights_for_are_refused_before_anything_is_allocated(tmp_path):
    save(MADE["experts"](), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_local_experts": 10**7}))
    assert "expected weights and config of the same model" in refused(tmp_path)


def test_an_expert_that_is_missing_is_refused(tmp_path):
    """As many numbers as are wanted, in another tensor: found when the library has put them together."""
    save(MADE["experts"](), tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    for name in [name for name in weights if "layers.1" in name and "experts.3" in name]:
        weights[name.replace("layers.1", "layers.0").replace("experts.3", "experts.9")] = weights.pop(name)
    save_file(weights, path, {"format": "pt"})
    assert "expected weights and config of the same model" in refused(tmp_path)


@pytest.mark.parametrize("name", ["lm_head.weight", "model.norm.weight", "model.layers.1.self_attn.q_proj.weight"])
def test_a_missing_tensor_is_named(name, tmp_path):
    save(LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=False)), tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    del weights[name]
    save_file(weights, path, {"format": "pt"})
    assert f"lack {name}" in refused(tmp_path)
