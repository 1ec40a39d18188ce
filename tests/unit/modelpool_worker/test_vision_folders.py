"""Which folders the vision capability loads, and which of its models step together."""

import json
import shutil

import pytest
import torch
from transformers import (
    Gemma3ForConditionalGeneration,
    Idefics3ForConditionalGeneration,
    LlavaForConditionalGeneration,
    PaliGemmaForConditionalGeneration,
    Qwen2_5_VLForConditionalGeneration,
)

from modelpool_worker.capabilities.base import LoadRequest
from modelpool_worker.capabilities.vision import Vision, reads_plainly
from modelpool_worker.errors import NeverLoadsError
from tiny_models import sliding_decoder, vision_language

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def idefics3(tmp_path_factory):
    path = tmp_path_factory.mktemp("idefics3")
    vision_language.build(path, "idefics3")
    return path


def request(path):
    return LoadRequest(folder=path, source="file:///m", dtype="float32", gpus=0, threads=1)


@pytest.mark.parametrize(
    ("model_class", "extra", "plainly"),
    [
        (Idefics3ForConditionalGeneration, ["pixel_values", "pixel_attention_mask"], True),
        (LlavaForConditionalGeneration, ["pixel_values", "image_sizes"], True),
        (LlavaForConditionalGeneration, ["pixel_values", "token_type_ids"], False),
        (Qwen2_5_VLForConditionalGeneration, ["pixel_values"], False),
        (Gemma3ForConditionalGeneration, ["pixel_values"], False),
        (PaliGemmaForConditionalGeneration, ["pixel_values"], False),
    ],
    ids=["idefics3", "llava", "inputs for every token", "positions of its own", "masks of its own", "a prefix"],
)
def test_only_models_that_leave_positions_and_masks_to_the_library_step_together(model_class, extra, plainly):
    assert reads_plainly(model_class, dict.fromkeys(extra, torch.zeros(1))) is plainly


def test_inputs_that_are_no_tensors_are_the_library_s_to_pass_on():
    assert not reads_plainly(LlavaForConditionalGeneration, {"pixel_values": [torch.zeros(1)]})


def changed(path, target, *, without=(), **changes):
    """Copy a folder, leaving files out and changing keys of JSON files."""
    shutil.copytree(path, target, ignore=lambda _folder, names: set(names) & set(without))
    for name, change in changes.items():
        file = target / f"{name}.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | change))
    return target


NEVER = {
    "a text model": ((), {"config": {"model_type": "llama"}}, "does not fit capability vision"),
    "code": ((), {"processor_config": {"auto_map": {"AutoProcessor": "code.Processor"}}}, "auto_map"),
    "no processor": (("processor_config.json",), {}, "no processor|processor of"),
    "no template": (("chat_template.jinja",), {}, "no chat template"),
    "no tokenizer": (("tokenizer.json",), {}, "processor of"),
}


@pytest.mark.parametrize(("without", "changes", "sentence"), NEVER.values(), ids=NEVER)
def test_folders_that_never_load(idefics3, tmp_path, without, changes, sentence):
    path = changed(idefics3, tmp_path / "m", without=without, **changes)
    with pytest.raises(NeverLoadsError, match=sentence):
        Vision().load(request(path))


def test_a_chat_template_that_leaves_images_out_never_loads(idefics3, tmp_path):
    path = changed(idefics3, tmp_path / "m")
    (path / "chat_template.jinja").write_text("{% for message in messages %}{{ message['role'] }}{% endfor %}")
    with pytest.raises(NeverLoadsError, match="does not take an image"):
        Vision().load(request(path))


def test_a_text_decoder_is_no_vision_model(tmp_path):
    sliding_decoder.build(tmp_path)
    with pytest.raises(NeverLoadsError, match="does not fit capability vision"):
        Vision().load(request(tmp_path))


def test_a_vocabulary_of_a_billion_is_refused_before_it_is_allocated(idefics3, tmp_path):
    config = json.loads((idefics3 / "config.json").read_text())
    path = changed(idefics3, tmp_path / "m", config={"text_config": config["text_config"] | {"vocab_size": 10**9}})
    with pytest.raises(NeverLoadsError, match="1000000000"):
        Vision().load(request(path))
