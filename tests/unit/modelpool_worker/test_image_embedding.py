"""Tiny CLIP, SigLIP, SigLIP 2 and DINOv2 models against the library called directly on the same folder."""

import gc
import json
import shutil
from dataclasses import replace
from functools import cache
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, CLIPProcessor

from modelpool_worker.capabilities.base import LoadRequest
from modelpool_worker.capabilities.image_embedding import ImageEmbedding
from modelpool_worker.errors import InvalidRequestError, NeverLoadsError, QueueFullError
from modelpool_worker.imaging.encoded import encoded_image
from modelpool_worker.imaging.pixel_budget import PixelBudget, Share
from tiny_models import image_encoder
from tiny_models.byte_level import byte_level

pytestmark = pytest.mark.models

PAIRS = ["clip", "siglip", "siglip2"]
KINDS = [*PAIRS, "dinov2"]
SIZES = [(40, 30), (32, 32), (7, 200), (300, 90), (3, 3), (1, 1), (2, 1), (64, 3)]
TEXTS = ["a cat", "a red dog in the morning", "x", "one two three four five six seven eight nine ten eleven twelve"]


def picture(size, kind="png"):
    """The bytes of an image in colours of its own."""
    width, height = size
    chance = np.random.default_rng(width * 1000 + height)
    file = BytesIO()
    image = Image.fromarray(chance.integers(0, 256, (height, width, 3), dtype=np.uint8))
    Image.blend(image, Image.new("RGB", size, tuple(chance.integers(0, 256, 3).tolist())), 0.7).save(file, kind)
    return file.getvalue()


def encoded(data):
    return encoded_image(data, max_pixels=10**6, param="input")


PICTURES = [encoded(picture(size)) for size in SIZES]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    @cache
    def build(kind):
        folder = tmp_path_factory.mktemp(kind)
        image_encoder.build(folder, kind)
        return folder

    return build


@pytest.fixture(scope="module")
def loaded(folders):
    """A function that returns the model of a kind, loaded once."""

    @cache
    def load(kind, dtype="float32"):
        model = ImageEmbedding()
        model.load(ask(folders(kind), dtype))
        return model

    return load


def ask(folder, dtype="float32"):
    return LoadRequest(folder=folder, source="file:///models/m", dtype=dtype, gpus=0, threads=1)


def vectors(model, inputs):
    """Embed each in the batch of its group, in the order of the inputs."""
    prepared = model.prepare(inputs)
    found = {}
    for group in {each.group for each in prepared}:
        places = [place for place, each in enumerate(prepared) if each.group == group]
        made = model.run_batch([prepared[place].value for place in places], lambda: True)
        found |= dict(zip(places, made, strict=True))
    return np.stack([found[place] for place in range(len(inputs))])


def by_library(folder, data):
    """The vector that the library makes of an image when it is called as its own pages say."""
    model = AutoModel.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder)
    inputs = processor(images=Image.open(BytesIO(data)).convert("RGB"), return_tensors="pt")
    with torch.inference_mode():
        made = model.get_image_features(**inputs) if hasattr(model, "get_image_features") else model(**inputs)
    vector = made.pooler_output[0].numpy()
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_the_librarys_and_of_length_1(kind, folders, loaded):
    made = vectors(loaded(kind), PICTURES)
    expected = np.stack([by_library(folders(kind), image.data) for image in PICTURES])
    assert (made * expected).sum(axis=1).min() >= 0.9999
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)
    assert made.dtype == np.float32


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_has_its_own_vector_alone_and_in_a_batch(kind, loaded):
    together = vectors(loaded(kind), PICTURES)
    alone = np.concatenate([vectors(loaded(kind), [image]) for image in PICTURES])
    assert np.abs(together - alone).max() < 1e-5
    # the first two are large enough to differ clearly: what is compared here does depend on the image
    assert together[0] @ together[1] < 0.99


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_load_says_is_what_comes(kind, folders):
    model = ImageEmbedding()
    said = model.load(ask(folders(kind)))
    assert (said.device, said.dtype) == ("cpu", "float32")
    model.warm_up()
    assert vectors(model, PICTURES[:1]).shape == (1, said.vector_size)
    model.unload()


@pytest.mark.parametrize("kind", PAIRS)
def test_texts_share_the_space_and_are_the_librarys(kind, folders, loaded):
    made = vectors(loaded(kind), TEXTS)
    model, tokenizer = AutoModel.from_pretrained(folders(kind)), AutoTokenizer.from_pretrained(folders(kind))
    longest = model.config.text_config.max_position_embeddings
    for text, vector in zip(TEXTS, made, strict=True):
        options = {"truncation": True, "max_length": longest, "return_tensors": "pt"}
        if kind == "clip":
            inputs = dict(tokenizer([text], **options))
        else:  # as these models were trained: padded to their length, no mask
            inputs = {"input_ids": tokenizer([text], padding="max_length", **options)["input_ids"]}
        with torch.inference_mode():
            expected = model.get_text_features(**inputs).pooler_output[0].numpy()
        assert vector @ expected / np.linalg.norm(expected) >= 0.9999
    assert made.shape[1] == vectors(loaded(kind), PICTURES[:1]).shape[1]


def test_texts_and_images_of_one_request_keep_their_order(loaded):
    mixed = [TEXTS[0], PICTURES[0], TEXTS[1], PICTURES[1], TEXTS[2]]
    expected = np.concatenate([vectors(loaded("clip"), [each]) for each in mixed])
    assert np.abs(vectors(loaded("clip"), mixed) - expected).max() < 1e-5


def test_a_text_is_counted_by_its_tokens_and_an_image_by_its_patches(loaded):
    text, image = loaded("clip").prepare([TEXTS[0], PICTURES[0]])
    assert (text.cost, text.tokens) == (3, 3)
    assert (image.cost, image.tokens) == (4, 4)  # 32 x 32 pixels, patches of 16 x 16
    assert text.group != image.group


def test_the_batch_of_a_cpu_is_small(folders):
    assert ImageEmbedding().load(ask(folders("clip"))).max_items == 16


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_is_close_to_float32(kind, loaded):
    exact, rounded = vectors(loaded(kind), PICTURES), vectors(loaded(kind, "bfloat16"), PICTURES)
    assert (exact * rounded).sum(axis=1).min() >= 0.999
    assert not np.array_equal(exact, rounded)
    np.testing.assert_allclose(np.linalg.norm(rounded, axis=1), 1, atol=1e-5)


@pytest.fixture
def calculating(monkeypatch):
    """A machine that calculates in bfloat16 by itself, whatever this one does."""
    monkeypatch.setattr("modelpool_worker.models.devices.has_bfloat16", lambda _device, _cuda: True)


def coarse(folder, tmp_path, side):
    """The same model with what it says on one side hidden in a large number: bfloat16 rounds it away, float32 does not.

    The large number is the same in every place, and what projects sums up to nothing over the places.
    """
    norm, projection = {
        "images": ("vision_model.post_layernorm.bias", "visual_projection.weight"),
        "texts": ("text_model.final_layer_norm.bias", "text_projection.weight"),
    }[side]
    made = copied(folder, tmp_path)
    weights = load_file(made / "model.safetensors")
    weights[norm] += 1000
    weights[projection] -= weights[projection].mean(dim=1, keepdim=True)
    save_file(weights, made / "model.safetensors", {"format": "pt"})
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_auto_is_bfloat16_where_the_vectors_keep_their_direction(kind, folders, loaded, calculating):
    model = ImageEmbedding()
    assert model.load(ask(folders(kind), "auto")).dtype == "bfloat16"
    np.testing.assert_array_equal(vectors(model, PICTURES), vectors(loaded(kind, "bfloat16"), PICTURES))


@pytest.mark.parametrize(("side", "inputs"), [("images", PICTURES), ("texts", TEXTS)], ids=["images", "texts"])
def test_auto_stays_with_float32_where_rounding_turns_vectors(folders, tmp_path, calculating, side, inputs):
    folder = coarse(folders("clip"), tmp_path, side)
    made = {}
    for asked in ("auto", "bfloat16", "float32"):
        model = ImageEmbedding()
        assert model.load(ask(folder, asked)).dtype == ("float32" if asked == "auto" else asked)
        made[asked] = vectors(model, inputs)
    np.testing.assert_array_equal(made["auto"], made["float32"])
    assert (made["float32"] * made["bfloat16"]).sum(axis=1).min() < 0.999, "bfloat16 must be too coarse for this model"


def test_without_room_for_both_formats_auto_is_bfloat16_uncompared(folders, tmp_path, calculating, monkeypatch):
    monkeypatch.setattr("modelpool_worker.embedding.rounding.free_bytes", lambda _device: 1000)
    assert ImageEmbedding().load(ask(coarse(folders("clip"), tmp_path, "images"), "auto")).dtype == "bfloat16"


def test_the_same_pixels_in_another_file_give_the_same_vector(loaded):
    image = Image.open(BytesIO(PICTURES[0].data))
    file = BytesIO()
    image.save(file, "WEBP", lossless=True)
    np.testing.assert_array_equal(*vectors(loaded("clip"), [PICTURES[0], encoded(file.getvalue())]))


def test_a_model_without_a_text_side_refuses_texts(loaded):
    with pytest.raises(InvalidRequestError, match="takes no texts") as caught:
        loaded("dinov2").prepare([PICTURES[0], "swordfish"])
    assert caught.value.param == "input"


@pytest.mark.parametrize("given", [" \n", "\u200b"], ids=["blanks", "no width"])
def test_a_text_without_tokens_is_refused_where_the_tokenizer_adds_none(folders, tmp_path, given):
    bare = {
        "post_processor": None,
        "normalizer": {"type": "Replace", "pattern": {"Regex": "[\\s\u200b]"}, "content": ""},
    }
    folder = changed(folders("clip"), tmp_path, "tokenizer.json", **bare)
    model = ImageEmbedding()
    model.load(ask(folder))
    with pytest.raises(InvalidRequestError, match="no tokens; expected") as refused:
        model.prepare(["a cat", given])
    assert (refused.value.param, refused.value.status) == ("input", 400)
    assert len(model.prepare(["a cat"])) == 1


def test_a_pair_without_its_tokenizer_serves_images(folders, tmp_path):
    folder = copied(folders("clip"), tmp_path)
    (folder / "tokenizer.json").unlink()
    model = ImageEmbedding()
    model.load(ask(folder))
    model.warm_up()
    assert len(model.prepare(PICTURES)) == len(PICTURES)
    with pytest.raises(InvalidRequestError, match="takes no texts"):
        model.prepare(["a cat"])


def test_an_image_that_decodes_to_nothing_is_refused_by_itself(loaded):
    cut = PICTURES[3].data[:-300]
    whole = cut + PICTURES[3].data[-12:]  # ends as a PNG does
    with pytest.raises(InvalidRequestError, match="damaged"):
        loaded("clip").prepare([encoded(whole)])
    assert loaded("clip").prepare(PICTURES[:1])


def test_what_waits_in_memory_is_bounded_and_freed(folders):
    model = ImageEmbedding()
    model.load(ask(folders("clip")))
    model._budget = PixelBudget(3 * 32 * 32 * 4 * 2)  # two images of float32
    first = model.prepare(PICTURES[:2])
    with pytest.raises(QueueFullError):
        model.prepare(PICTURES[2:3])
    assert model.prepare(["a text takes no room there"])
    del first
    gc.collect()
    assert model.prepare(PICTURES[2:4])


def test_many_images_of_one_request_do_not_compete_with_each_other(folders):
    """Not even where they are prepared one by one, while the first ones still wait for the model."""
    model = ImageEmbedding()
    model.load(ask(folders("clip")))
    model._budget = PixelBudget(3 * 32 * 32 * 4 * 2)
    share = Share("input")
    first, second, third = (replace(image, share=share) for image in PICTURES[:3])
    waiting = model.prepare([first]) + model.prepare([second])
    with pytest.raises(InvalidRequestError, match="at most 2 like these"):
        model.prepare([third])
    with pytest.raises(QueueFullError):
        model.prepare(PICTURES[3:4])
    assert len(waiting) == 2


def test_where_memory_is_short_a_batch_of_images_is_taken_nevertheless(folders, monkeypatch):
    monkeypatch.setattr("modelpool_worker.capabilities.image_embedding.free_bytes", lambda _device: 0)
    model = ImageEmbedding()
    model.load(ask(folders("clip")))
    share = Share("input")
    assert model.prepare([replace(PICTURES[0], share=share)] * 16)
    with pytest.raises(InvalidRequestError, match="at most 16 like these"):
        model.prepare([replace(PICTURES[0], share=share)])


def test_a_processor_saved_with_its_tokenizer_in_one_file(folders, tmp_path):
    folder = copied(folders("clip"), tmp_path)
    processor = CLIPProcessor(AutoImageProcessor.from_pretrained(folder), byte_level())
    (folder / "preprocessor_config.json").unlink()
    processor.save_pretrained(str(folder))
    shutil.copy(folders("clip") / "tokenizer.json", folder)
    model = ImageEmbedding()
    model.load(ask(folder))
    expected = np.stack([by_library(folders("clip"), image.data) for image in PICTURES])
    assert (vectors(model, PICTURES) * expected).sum(axis=1).min() >= 0.9999


def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "model")


def changed(folder, tmp_path, name, **changes):
    made = copied(folder, tmp_path)
    config = json.loads((made / name).read_text())
    for key, value in changes.items():
        inner = config
        *path, last = key.split("__")
        for step in path:
            inner = inner[step]
        inner[last] = value
    (made / name).write_text(json.dumps(config))
    return made


def refused(folder):
    with pytest.raises(NeverLoadsError) as caught:
        ImageEmbedding().load(ask(folder))
    assert "file:///models/m" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        pytest.param({"model_type": "bert"}, "does not fit capability image-embedding", id="a text encoder"),
        pytest.param({"model_type": "nonsense"}, "does not know", id="an unknown model"),
        pytest.param({"projection_dim": 25}, "of shape", id="another size than the weights"),
        pytest.param({"vision_config__hidden_size": 2**20}, "of shape", id="a huge size"),
        pytest.param({"vision_config__num_hidden_layers": 10**6}, "layers", id="very many layers"),
        pytest.param({"vision_config__attn_implementation": "some/kernel"}, "attn_implementation", id="code by name"),
        pytest.param({"vision_config__auto_map": {"AutoModel": "x.Y"}}, "auto_map", id="code of the author"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(folders, tmp_path, changes, sentence):
    assert sentence in refused(changed(folders("clip"), tmp_path, "config.json", **changes))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        pytest.param({"crop_size": {"height": 40, "width": 40}}, "makes no vector", id="another size than the model's"),
        pytest.param({"size": {"shortest_edge": 100_000}}, "too large to be served", id="a huge size"),
        pytest.param({"crop_size": {"height": 9999, "width": 9}}, "too large to be served", id="a huge crop"),
        pytest.param({"image_processor_type": "NoSuchProcessor"}, "cannot be loaded", id="an unknown processor"),
        pytest.param({"auto_map": {"AutoImageProcessor": "x.Y"}}, "auto_map", id="code of the author"),
    ],
)
def test_a_processor_that_does_not_fit_is_refused(folders, tmp_path, changes, sentence):
    assert sentence in refused(changed(folders("clip"), tmp_path, "preprocessor_config.json", **changes))


def test_a_processor_of_very_many_patches_is_refused(folders, tmp_path):
    folder = changed(folders("siglip2"), tmp_path, "preprocessor_config.json", max_num_patches=10**6)
    assert "too large to be served" in refused(folder)


def test_a_folder_without_its_processor_is_refused(folders, tmp_path):
    folder = copied(folders("clip"), tmp_path)
    (folder / "preprocessor_config.json").unlink()
    assert "image processor" in refused(folder)


def test_weights_without_the_image_side_are_refused(folders, tmp_path):
    folder = copied(folders("clip"), tmp_path)
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("visual_projection")}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    assert "lack visual_projection.weight" in refused(folder)


def test_an_encoder_saved_without_its_pooler_is_refused(tmp_path):
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    whole, bare = (ViTModel(ViTConfig(**sizes, image_size=32, patch_size=16), add_pooling_layer=p) for p in (1, 0))
    for name, model in (("whole", whole), ("bare", bare)):
        model.save_pretrained(str(tmp_path / name))
        ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(str(tmp_path / name))
    model = ImageEmbedding()
    model.load(ask(tmp_path / "whole"))
    expected = by_library(tmp_path / "whole", PICTURES[0].data)
    assert vectors(model, PICTURES[:1])[0] @ expected >= 0.9999
    assert "without its pooler" in refused(tmp_path / "bare")


def test_pickles_are_refused(folders, tmp_path):
    folder = copied(folders("clip"), tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "pytorch_model.bin" in refused(folder)
