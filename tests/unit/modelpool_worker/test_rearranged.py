"""Linear layers whose weights lie as the CPU's kernels read them: the same numbers, once in memory."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.models.qwen3.modeling_qwen3 import Qwen3MLP

from modelpool_worker.capabilities.base import LoadRequest
from modelpool_worker.capabilities.text_to_text import TextToText
from modelpool_worker.generation import decoder
from modelpool_worker.generation.request import Sampling, TextRequest
from modelpool_worker.generation.solo import try_out
from modelpool_worker.models import rearranged
from modelpool_worker.models.linear import rearranges
from modelpool_worker.models.rearranged import rearrange
from tiny_models import text_decoder

pytestmark = [
    pytest.mark.models,
    pytest.mark.skipif(not rearranges(torch.float32), reason="this CPU has no order of weights of its own"),
]
KINDS = ("qwen3", "llama")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {kind: tmp_path_factory.mktemp(kind) for kind in KINDS}
    for kind, folder in made.items():
        text_decoder.build(folder, kind)
    return made


@pytest.fixture
def load(folders):
    def loaded(kind, dtype=torch.float32):
        return AutoModelForCausalLM.from_pretrained(str(folders[kind]), dtype=dtype, local_files_only=True).eval()

    return loaded


def said(model, ids):
    with torch.inference_mode():
        return model(torch.tensor(ids)).logits


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("dtype", "most"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)], ids=["float32", "bfloat16"]
)
@pytest.mark.parametrize(("rows", "tokens"), [(1, 1), (3, 1), (1, 32), (1, 33), (2, 50)])
def test_a_rearranged_model_says_what_it_said_before(load, kind, dtype, most, rows, tokens):
    model = load(kind, dtype)
    ids = [[(7 * row + 3 * place) % 200 for place in range(tokens)] for row in range(rows)]
    before = said(model, ids)
    assert rearrange(model, try_out)
    after = said(model, ids)
    assert after.dtype is dtype
    assert after.shape == before.shape
    assert (after - before).float().abs().max() <= most * before.float().abs().max()


def test_weights_are_in_memory_once_and_the_file_is_let_go(tmp_path):
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=300, attention_bias=True)).save_pretrained(str(tmp_path))
    model = LlamaForCausalLM.from_pretrained(str(tmp_path), local_files_only=True).eval()
    assert str(tmp_path) in Path("/proc/self/maps").read_text()
    assert rearrange(model, try_out)
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert layers
    for layer in layers:
        assert layer.weight.untyped_storage().nbytes() == layer.weight.element_size()
        assert layer.weight.isnan().all()


@pytest.mark.parametrize(("free", "copied"), [(2**40, True), (0, False)], ids=["memory enough", "no memory"])
def test_a_layer_that_shares_its_weights_gets_a_copy_only_where_memory_is_plenty(monkeypatch, free, copied):
    monkeypatch.setattr(rearranged, "free_bytes", lambda _device: free)
    torch.manual_seed(4)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=300, tie_word_embeddings=True)).eval()
    before = said(model, [[1, 2, 3]])
    assert rearrange(model, try_out)
    assert ("forward" in vars(model.lm_head)) is copied
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert (said(model, [[1, 2, 3]]) - before).abs().max() <= 1e-5 * before.abs().max()


def looks(self, rows):
    return self.down_proj(self.act_fn(self.gate_proj(rows)) * functional.linear(rows, self.up_proj.weight))


def refuses(self, rows):
    if self.up_proj.weight.isnan().any():
        raise ValueError("what is this?")
    return looks(self, rows)


@pytest.mark.parametrize("forward", [looks, refuses])
def test_a_model_that_looks_at_its_layers_weights_is_loaded_as_it_is_saved(folders, load, monkeypatch, forward):
    ids, sampling = (5, 9, 17, 4), Sampling(temperature=0, max_tokens=8)
    expected = load(KINDS[0]).generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False)[0, len(ids) :].tolist()
    monkeypatch.setattr(Qwen3MLP, "forward", forward)
    assert not rearrange(load(KINDS[0]), try_out)
    monkeypatch.setattr(decoder, "join_layers", lambda _model: True)  # nobody asks for a joined layer's weights
    model = TextToText()
    model.load(LoadRequest(folder=folders[KINDS[0]], source="file:///m", dtype="float32", gpus=0, threads=1))
    (prepared,) = model.prepare([TextRequest(prompt=ids, sampling=sampling)])
    pieces = model.turn({1: prepared.value}, ())
    while not pieces[-1].last:
        pieces += model.turn({}, ())
    text = "".join(piece.value.text for piece in pieces)
    model.unload()
    tokenizer = AutoTokenizer.from_pretrained(str(folders[KINDS[0]]), local_files_only=True)
    assert text == tokenizer.decode(expected, skip_special_tokens=True)


class Own(nn.Linear):
    """Calculates in its own way."""


def test_what_is_no_plain_layer_of_this_cpu_stays_as_it_is():
    torch.manual_seed(2)
    hooked = nn.Linear(8, 8)
    hooked.forward = lambda rows: rows + 1
    model = nn.Sequential(Own(8, 8), nn.Linear(8, 8).half(), hooked, nn.Linear(8, 8, device="meta"))
    kept = [layer.forward for layer in model]
    assert rearrange(model, lambda _model: pytest.fail("nothing was rearranged"))
    assert [layer.forward for layer in model] == kept
    assert not any(layer.weight.isnan().any() for layer in list(model)[:3])


def test_any_shape_of_input_is_taken():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(8, 6))
    shapes = [(8,), (0, 8), (2, 0, 8), (5, 8), (2, 3, 8), (2, 1, 40, 8)]
    given = [torch.randn(shape) for shape in shapes] + [torch.randn(8, 40).T]
    expected = [model(each) for each in given]
    assert rearrange(model, lambda each: each(torch.ones(1, 8)))
    for each, wanted in zip(given, expected, strict=True):
        got = model(each)
        assert got.shape == wanted.shape
        assert torch.allclose(got, wanted, atol=1e-5)
