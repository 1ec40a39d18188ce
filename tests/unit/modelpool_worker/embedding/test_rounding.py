"""When vectors of both formats are compared, and that a model's format is changed as if it had been loaded in it."""

from itertools import chain

import pytest
import structlog
import torch
from transformers import AutoModel, ModernBertConfig, ModernBertModel

from modelpool_worker.embedding.rounding import agree, is_comparable
from modelpool_worker.models import model_files
from modelpool_worker.models.pretrained import convert, load_model, read_config
from tiny_models import image_encoder

pytestmark = pytest.mark.models

GIB = 2**30


@pytest.mark.parametrize(
    ("saved", "numbers", "free", "compared"),
    [
        ("float32", GIB // 4, 2 * GIB, True),
        ("float32", 8 * GIB, 64 * GIB, True),
        ("float32", GIB // 4, GIB, False),
        ("float16", 2 * GIB, 16 * GIB, True),
        ("float16", 2 * GIB, 8 * GIB, False),
        ("bfloat16", GIB // 2, 64 * GIB, True),
        ("bfloat16", GIB // 2 + 1, 64 * GIB, False),
        ("bfloat16", GIB // 2, 2 * GIB, False),
    ],
    ids=[
        "small",
        "large, with room",
        "no room beside the weights",
        "saved in float16, with room",
        "saved in float16, without",
        "saved in bfloat16, small",
        "saved in bfloat16, large",
        "saved in bfloat16, small, without room",
    ],
)
def test_formats_are_compared_where_rounding_is_new_and_memory_is_there(saved, numbers, free, compared):
    assert is_comparable(saved, numbers, free) is compared


def test_that_there_was_no_room_to_compare_is_in_the_log():
    with structlog.testing.capture_logs() as logs:
        is_comparable("float32", 250, 1000)
        is_comparable("bfloat16", GIB, 64 * GIB)  # not for lack of room
    assert [(each["log_level"], each["wanted_bytes"], each["free_bytes"]) for each in logs] == [("warning", 1000, 1000)]


def test_vectors_that_are_no_numbers_do_not_agree():
    broken = torch.tensor([[1.0, float("nan")]])
    assert agree(torch.ones(2, 3), torch.ones(2, 3))
    assert not agree(torch.ones(2, 3), torch.tensor([[1.0, 1.0, 1.0], [-1.0, 1.0, 1.0]]))
    assert not agree(torch.ones(1, 2), broken)


def rotating(folder):
    """An encoder that knows positions by rotations, whose table is calculated, not saved."""
    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    ModernBertModel(ModernBertConfig(**sizes, **ids, num_attention_heads=2)).save_pretrained(str(folder))


@pytest.mark.parametrize(
    "build",
    [
        rotating,
        *(lambda folder, kind=kind: image_encoder.build(folder, kind) for kind in ("clip", "siglip2", "dinov2")),
    ],
    ids=["rotations", "clip", "siglip2", "dinov2"],
)
def test_a_model_whose_format_is_changed_equals_one_that_was_loaded_in_it(tmp_path, build):
    build(tmp_path)
    files = model_files.check(tmp_path, "m")
    loaded, changed = (
        load_model(AutoModel, read_config(files), files, dtype, torch.device("cpu"))
        for dtype in (torch.bfloat16, torch.float32)
    )
    convert(changed, torch.bfloat16)
    parts = [dict(chain(model.named_parameters(), model.named_buffers())) for model in (loaded, changed)]
    assert parts[0].keys() == parts[1].keys()
    for name, tensor in parts[0].items():
        assert (tensor.dtype, True) == (parts[1][name].dtype, torch.equal(tensor, parts[1][name])), name
