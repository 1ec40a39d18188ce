"""What a model folder may not be, and the sentence that says so."""

import json
import struct

import pytest

from modelpool_worker.embedding.sentence_folder import Recipe, read_recipe
from modelpool_worker.errors import NeverLoadsError
from modelpool_worker.models.model_files import check
from modelpool_worker.models.shapes import check_shapes

CONFIG = {"model_type": "bert", "hidden_size": 4, "num_hidden_layers": 1}


def weights(tensors=None, *, extra=b"", cut=0, header=None):
    """A safetensors file, made by hand: F32 tensors by name and shape."""
    entries, data = {}, b""
    for name, shape in (tensors or {"a": [2, 3]}).items():
        size = 4
        for length in shape:
            size *= length
        entries[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + size]}
        data += b"\0" * size
    head = json.dumps(entries).encode() if header is None else header
    whole = struct.pack("<Q", len(head)) + head + data + extra
    return whole[: len(whole) - cut]


def folder_of(path, files):
    for name, content in files.items():
        target = path / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


GOOD = {"config.json": CONFIG, "model.safetensors": weights()}


def test_a_good_folder_tells_its_shapes(tmp_path):
    files = check(folder_of(tmp_path, GOOD), "file:///m")
    assert files.shapes == {"a": (2, 3)}
    assert files.config["model_type"] == "bert"


def test_shards_are_read_as_one(tmp_path):
    parts = {f"model-{i}.safetensors": weights({name: [1]}) for i, name in enumerate("ab")}
    index = {"weight_map": {"a": "model-0.safetensors", "b": "model-1.safetensors"}}
    folder = folder_of(tmp_path, {"config.json": CONFIG, "model.safetensors.index.json": index, **parts})
    assert set(check(folder, "file:///m").shapes) == {"a", "b"}


def test_a_pickle_beside_the_weights_is_left_alone(tmp_path):
    check(folder_of(tmp_path, GOOD | {"pytorch_model.bin": b"x"}), "file:///m")


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        pytest.param({"config.json": CONFIG}, "has no model.safetensors", id="no weights"),
        pytest.param({"pytorch_model.bin": b"x", "config.json": CONFIG}, "pytorch_model.bin", id="pickle only"),
        pytest.param(GOOD | {"model.safetensors": weights(cut=5)}, "is cut short", id="cut"),
        pytest.param(GOOD | {"model.safetensors": weights(extra=b"xx")}, "longer than its header", id="too long"),
        pytest.param(GOOD | {"model.safetensors": b"abc"}, "is not a safetensors file", id="three bytes"),
        pytest.param(GOOD | {"model.safetensors": b"\xff" * 99}, "is not a safetensors file", id="garbage"),
        pytest.param(GOOD | {"model.safetensors": b"version https://git-lfs"}, "Git LFS pointer", id="lfs pointer"),
        pytest.param(GOOD | {"model.safetensors": weights(header=b"{]")}, "header of", id="broken header"),
        pytest.param(GOOD | {"model.safetensors": weights(header=b"[" * 99_999)}, "header of", id="deep header"),
        pytest.param(
            GOOD | {"model.safetensors": weights(header=b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,24]}}')},
            "another size than its shape",
            id="shape and size differ",
        ),
        pytest.param({"model.safetensors": weights()}, "has no config.json", id="no config"),
        pytest.param(GOOD | {"config.json": b"{"}, "is not valid JSON", id="broken config"),
        pytest.param(GOOD | {"config.json": [1]}, "is not a JSON object", id="config is a list"),
        pytest.param(GOOD | {"config.json": b"[" * 100_000}, "is not valid JSON", id="config too deep to parse"),
        pytest.param(
            GOOD | {"config.json": b'{"a":' * 40 + b"1" + b"}" * 40}, "nested deeper than", id="config too deep"
        ),
        pytest.param(GOOD | {"config.json": CONFIG | {"auto_map": {"AutoModel": "x.Y"}}}, "auto_map", id="code"),
        pytest.param(
            GOOD | {"config.json": CONFIG | {"text": [{"_attn_implementation": "org/kernel"}]}},
            "_attn_implementation",
            id="kernel, nested",
        ),
        pytest.param(
            GOOD | {"config.json": CONFIG | {"attn_implementation": ["sdpa"]}},
            "attn_implementation",
            id="attention list",
        ),
        pytest.param(
            GOOD | {"config.json": CONFIG | {"quantization_config": {"quant_method": "x"}}}, "quantiz", id="quantized"
        ),
        pytest.param(
            GOOD | {"tokenizer_config.json": {"auto_map": {"x": "y"}}}, "tokenizer_config", id="tokenizer code"
        ),
        pytest.param(GOOD | {"adapter_config.json": {}}, "is an adapter", id="adapter"),
        pytest.param(
            GOOD | {"config.json": CONFIG | {"num_hidden_layers": 10**9}}, "1 000 000 000 layers", id="too many layers"
        ),
        pytest.param(
            {"config.json": CONFIG, "model.safetensors.index.json": {"weight_map": {"a": "../x.safetensors"}}},
            "names no safetensors files",
            id="shard outside",
        ),
        pytest.param(
            {"config.json": CONFIG, "model.safetensors.index.json": {"weight_map": {"a": "b.safetensors"}}},
            "1 of 1 weight files",
            id="shard missing",
        ),
    ],
)
def test_a_bad_folder_is_refused_with_its_reason(tmp_path, files, sentence):
    with pytest.raises(NeverLoadsError, match="file:///m") as refused:
        check(folder_of(tmp_path, files), "file:///m")
    assert sentence in str(refused.value)


@pytest.mark.parametrize("value", [None, "sdpa", "eager"])
def test_plain_attention_is_allowed(tmp_path, value):
    check(folder_of(tmp_path, GOOD | {"config.json": CONFIG | {"_attn_implementation": value}}), "file:///m")


def test_what_is_cut_short_is_told_in_numbers(tmp_path):
    whole = len(weights())
    with pytest.raises(NeverLoadsError) as refused:
        check(folder_of(tmp_path, GOOD | {"model.safetensors": weights(cut=5)}), "file:///m")
    assert f"the header promises {whole} bytes, the file has {whole - 5}; copy the model again" in str(refused.value)


MODULES = [
    {"type": "sentence_transformers.models.Transformer", "path": ""},
    {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
]
NORMALIZE = {"type": "new.place.Normalize", "path": "2_Normalize"}


@pytest.mark.parametrize(
    ("files", "recipe"),
    [
        pytest.param({}, Recipe(), id="plain transformers folder"),
        pytest.param(
            {"modules.json": MODULES, "1_Pooling/config.json": {"pooling_mode_cls_token": True}},
            Recipe(pooling=("cls",)),
            id="switches",
        ),
        pytest.param(
            {"modules.json": [*MODULES, NORMALIZE], "1_Pooling/config.json": {"pooling_mode": "lasttoken"}},
            Recipe(pooling=("lasttoken",), normalize=True),
            id="one word, normalised",
        ),
        pytest.param(
            {
                "modules.json": MODULES,
                "1_Pooling/config.json": {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True},
                "sentence_bert_config.json": {"max_seq_length": 128, "do_lower_case": True},
                "config_sentence_transformers.json": {"default_prompt_name": "q", "prompts": {"q": "query: "}},
            },
            Recipe(pooling=("max", "mean"), max_seq_length=128, lower_case=True, prompt="query: "),
            id="two modes, length, case, prompt",
        ),
    ],
)
def test_recipes(tmp_path, files, recipe):
    assert read_recipe(folder_of(tmp_path, files), "file:///m") == recipe


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        pytest.param({"modules.json": [*MODULES, {"type": "x.Dense", "path": "2"}]}, "steps", id="dense"),
        pytest.param({"modules.json": [*reversed(MODULES)]}, "steps", id="wrong order"),
        pytest.param({"modules.json": {"a": 1}}, "not a list", id="no list"),
        pytest.param({"modules.json": [{"type": "Transformer", "path": "../x"}]}, "outside", id="outside"),
        pytest.param({"modules.json": MODULES}, "1_Pooling/config.json", id="no pooling config"),
        pytest.param(
            {"modules.json": MODULES, "1_Pooling/config.json": {"pooling_mode": "magic"}},
            "pooling",
            id="unknown pooling",
        ),
        pytest.param(
            {
                "modules.json": MODULES,
                "1_Pooling/config.json": {"pooling_mode": "mean", "include_prompt": False},
                "config_sentence_transformers.json": {"default_prompt_name": "q", "prompts": {"q": "query: "}},
            },
            "prompt",
            id="prompt left out of the pooling",
        ),
        pytest.param(
            {
                "modules.json": MODULES,
                "1_Pooling/config.json": {"pooling_mode": "mean"},
                "sentence_bert_config.json": {"max_seq_length": "long"},
            },
            "max_seq_length",
            id="length is no number",
        ),
    ],
)
def test_a_recipe_that_is_not_known_fails_the_load(tmp_path, files, sentence):
    with pytest.raises(NeverLoadsError) as refused:
        read_recipe(folder_of(tmp_path, files), "file:///m")
    assert sentence in str(refused.value)


WANTED = {"emb.weight": (10, 4), "pooler.dense.weight": (4, 4)}


@pytest.mark.parametrize(
    "held",
    [WANTED, {"emb.weight": (10, 4)}, {"bert.emb.weight": (10, 4), "head.weight": (9, 9)}],
    ids=["same", "pooler not saved", "saved with a head"],
)
def test_shapes_that_fit(held):
    check_shapes(WANTED, held, prefix="bert", source="file:///m")


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ({"emb.weight": (10**9, 4)}, "emb.weight of shape 1000000000×4, the weights hold 10×4"),
        ({"emb.weight": (10, 4), "layer.weight": (1,)}, "lack layer.weight"),
        ({"emb.weight": (10, 4), "pooler.dense.weight": (10**9, 4)}, "lack pooler"),
    ],
    ids=["larger", "missing", "huge pooler"],
)
def test_shapes_that_do_not_fit_are_refused_before_anything_is_allocated(wanted, sentence):
    with pytest.raises(NeverLoadsError) as refused:
        check_shapes(wanted, {"emb.weight": (10, 4)}, prefix="bert", source="file:///m")
    assert sentence in str(refused.value)
