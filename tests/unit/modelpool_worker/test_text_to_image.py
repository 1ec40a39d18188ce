"""Tiny text-to-image pipelines against diffusers called directly on the same folders."""

import inspect
import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING
from safetensors.torch import load_file, save_file

from modelpool_worker.capabilities.base import LoadRequest, NobodyWaitsError
from modelpool_worker.capabilities.text_to_image import TextToImage
from modelpool_worker.errors import InvalidRequestError, NeverLoadsError, RetryLoadError
from modelpool_worker.models.diffusion_folder import PIPELINES
from modelpool_worker.openai.images import ImageRequest
from tiny_models.diffusion import build

pytestmark = pytest.mark.models

KINDS = ("stable-diffusion", "safety-checked", "stable-diffusion-xl", "flux")
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)
SIZE = (64, 64)
CAT = ImageRequest("a red cat", seed=1, size=SIZE, steps=2)
HOUSE = ImageRequest("an old house by a river", seed=2, size=SIZE, steps=2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {kind: tmp_path_factory.mktemp(kind) for kind in KINDS}
    for kind, folder in made.items():
        build(folder, kind)
    return made


def loaded(folder, **changes):
    fields = {"folder": folder, "source": "file:///m", "dtype": "float32", "gpus": 0, "threads": 1}
    model = TextToImage()
    return model, model.load(LoadRequest(**fields | changes))


@pytest.fixture(scope="module")
def models(folders):
    return {kind: loaded(folder)[0] for kind, folder in folders.items()}


@pytest.fixture(scope="module")
def model(models):
    return models["stable-diffusion"]


def draw(model, *requests, wanted=lambda: True):
    return model.run_batch([each.value for each in model.prepare(requests)], wanted)


def apart(a, b):
    """The largest difference of two images, of 255."""
    return int(np.abs(np.asarray(a, dtype=np.int16) - np.asarray(b, dtype=np.int16)).max())


@EVERY_KIND
def test_an_image_is_what_diffusers_draws(folders, models, kind):
    pipeline = DiffusionPipeline.from_pretrained(
        str(folders[kind]), dtype=torch.float32, local_files_only=True, low_cpu_mem_usage=False
    )
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator("cpu").manual_seed(CAT.seed)
    theirs = pipeline(CAT.prompt, width=64, height=64, num_inference_steps=2, generator=generator).images[0]
    assert apart(draw(models[kind], CAT)[0], theirs) <= 2


def test_guidance_and_negative_prompts_reach_diffusers(folders, model):
    asked = ImageRequest("a red cat", 3, (64, 96), 3, guidance=2.5, negative_prompt="a blue tree")
    pipeline = DiffusionPipeline.from_pretrained(
        str(folders["stable-diffusion"]), dtype=torch.float32, local_files_only=True, low_cpu_mem_usage=False
    )
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        asked.prompt,
        negative_prompt=asked.negative_prompt,
        guidance_scale=2.5,
        width=64,
        height=96,
        num_inference_steps=3,
        generator=torch.Generator("cpu").manual_seed(3),
    ).images[0]
    ours = draw(model, asked)[0]
    assert ours.shape == (96, 64, 3)
    assert apart(ours, theirs) <= 2


@EVERY_KIND
def test_an_image_alone_equals_the_image_in_a_batch(models, kind):
    together = draw(models[kind], CAT, HOUSE, CAT)
    alone = [draw(models[kind], each)[0] for each in (CAT, HOUSE)]
    assert max(map(apart, together, [*alone, alone[0]])) <= 2
    assert apart(alone[0], alone[1]) > 50


@EVERY_KIND
def test_asked_again_an_image_is_the_same_to_the_bit(models, kind):
    assert np.array_equal(draw(models[kind], CAT)[0], draw(models[kind], CAT)[0])


def test_seed_and_prompt_make_the_image(model):
    red = draw(model, CAT)[0]
    assert apart(red, draw(model, ImageRequest(CAT.prompt, 9, SIZE, 2))[0]) > 50
    assert apart(red, draw(model, ImageRequest("a large blue tree", CAT.seed, SIZE, 2))[0]) > 2


@pytest.mark.parametrize(
    ("other", "together"),
    [
        (ImageRequest("another", 9, (64, 64), 2, 3.0, "rain"), True),
        (ImageRequest("a cat", 1, None, 2, 3.0, "rain"), True),
        (ImageRequest("a cat", 1, (128, 64), 2, 3.0, "rain"), False),
        (ImageRequest("a cat", 1, (64, 64), 3, 3.0, "rain"), False),
        (ImageRequest("a cat", 1, (64, 64), 2, 4.0, "rain"), False),
        (ImageRequest("a cat", 1, (64, 64), 2, 3.0), False),
    ],
    ids=["prompt and seed differ", "the model's own size", "size", "steps", "guidance", "no negative prompt"],
)
def test_what_may_share_a_batch(model, other, together):
    first = ImageRequest("a cat", 1, (64, 64), 2, 3.0, "snow")
    one, two = model.prepare([first, other])
    assert (one.group == two.group) is together


def test_costs_are_latent_cells_and_tokens_those_of_the_prompt(model):
    small, large = model.prepare([CAT, ImageRequest("a", 1, (128, 64))])
    assert (small.cost, large.cost) == (32 * 32, 64 * 32)
    assert small.tokens > large.tokens == 3  # the letter between start and end


@pytest.mark.parametrize(
    ("kind", "fields", "param", "sentence"),
    [
        ("stable-diffusion", {"size": (65, 64)}, "size", "multiples of 2, for example 64x64"),
        ("stable-diffusion", {"size": (2048, 2048)}, "size", "4194304 pixels; expected at most 262144"),
        ("flux", {"size": (64, 66)}, "size", "multiples of 4, for example 256x256"),
        ("flux", {"negative_prompt": "swordfish"}, "negative_prompt", "takes no negative_prompt"),
    ],
    ids=["odd", "far beyond its own", "what Flux would silently round", "ignored by Flux"],
)
def test_what_this_model_does_not_take(models, kind, fields, param, sentence):
    with pytest.raises(InvalidRequestError, match=sentence) as error:
        models[kind].prepare([ImageRequest("swordfish", 1, **fields)])
    assert error.value.param == param
    assert "swordfish" not in str(error.value)


def test_more_pixels_than_one_request_may_have(model):
    with pytest.raises(InvalidRequestError, match="at most 8388608"):
        model.prepare([ImageRequest("a cat", i, (2048, 1024)) for i in range(5)])


def test_an_image_for_which_there_is_no_memory_is_refused(folders, monkeypatch):
    """The memory is that of the moment when the model was loaded; 64x64 always fits."""
    monkeypatch.setattr("modelpool_worker.capabilities.text_to_image.free_bytes", lambda _device: 8 * 2**20)
    small, _ = loaded(folders["stable-diffusion"])
    assert small.prepare([CAT])
    with pytest.raises(InvalidRequestError, match="expected at most 8738 of this model in this worker's memory"):
        small.prepare([ImageRequest("a cat", 1, (128, 128))])


def test_nobody_waits_ends_it_at_the_next_step_and_leaves_the_model_right(model):
    asked, before = [], draw(model, CAT)[0]

    def wanted():
        asked.append(True)
        return len(asked) < 2

    with pytest.raises(NobodyWaitsError):
        draw(model, ImageRequest("a house", 4, SIZE, 10), wanted=wanted)
    assert len(asked) == 2
    assert np.array_equal(draw(model, CAT)[0], before)


@EVERY_KIND
def test_a_long_prompt_is_cut_and_written_nowhere(models, kind, capfd, caplog):
    words = "swordfish " * 390
    long, longer = (ImageRequest(words + end, 1, SIZE, 1) for end in ("", "tail"))
    assert np.array_equal(draw(models[kind], long)[0], draw(models[kind], longer)[0])
    assert "swordfish" not in "".join(capfd.readouterr()) + caplog.text


@pytest.mark.parametrize("prompt", [" ", "\x00", "🚀" * 100, "<|endoftext|>" * 50, "東京"], ids=ascii)
def test_every_prompt_draws_something(model, prompt):
    assert draw(model, ImageRequest(prompt, 1, SIZE, 1))[0].shape == (64, 64, 3)


def changed(folder, tmp_path, **changes):
    """The pipeline with some JSON files changed: ``unet_config={…}`` is unet/config.json."""
    copy = shutil.copytree(folder, tmp_path / "model")
    for name, change in changes.items():
        component, _, rest = name.partition("__")
        path = copy / component / f"{rest}.json" if rest else copy / f"{component}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    return copy


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model_index": {"unet": ["diffusers", "NoSuchModel"]}}, "a class for unet that diffusers does not have"),
        ({"model_index": {"unet": ["diffusers", "AutoModel"]}}, "a class for unet that diffusers does not have"),
        ({"model_index": {"unet": ["diffusers", "DiffusionPipeline"]}}, "a class for unet"),
        ({"model_index": {"scheduler": ["diffusers", "VaeImageProcessor"]}}, "a class for scheduler"),
        ({"model_index": {"text_encoder": ["transformers", "T5EncoderModel"]}}, "of another kind of model"),
        ({"model_index": {"unet": ["diffusers", "AutoencoderKL"]}}, "describes no model"),
        ({"model_index": {"vae": [None, None]}}, "was refused by diffusers"),
        ({"unet__config": {"block_out_channels": [16, 320_000]}}, "more tensors of shape"),
        ({"unet__config": {"layers_per_block": 2}}, "more tensors of shape"),
        ({"unet__config": {"down_block_types": ["NoSuchBlock"] * 2}}, "describes no model"),
        ({"unet__config": {"block_out_channels": "wide"}}, "describes no model"),
        ({"text_encoder__config": {"vocab_size": 10**9}}, "of shape 1000000000×32"),
        ({"text_encoder__config": {"num_hidden_layers": 3}}, "lack"),
        ({"text_encoder__config": {"model_type": "unheard_of"}}, "model_type that this worker does not know"),
        ({"scheduler__scheduler_config": {"beta_schedule": "unheard_of"}}, "was refused by diffusers"),
    ],
    ids=lambda value: value if isinstance(value, str) else json.dumps(value)[:60],
)
def test_a_folder_whose_parts_do_not_fit_never_loads(folders, tmp_path, changes, sentence):
    with pytest.raises(NeverLoadsError) as refused:
        loaded(changed(folders["stable-diffusion"], tmp_path, **changes))
    assert sentence in str(refused.value)


def test_a_model_without_finite_pixels_is_told_at_its_warm_up(folders, tmp_path):
    folder = changed(folders["stable-diffusion"], tmp_path)
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["decoder.conv_out.weight"].fill_(float("nan"))
    save_file(weights, path)
    model, _ = loaded(folder)
    with pytest.raises(NeverLoadsError, match="not finite numbers; try dtype float32"):
        model.warm_up()


@pytest.mark.parametrize(
    ("scheduler", "fields", "least", "most"),
    [
        ("PNDMScheduler", {"skip_prk_steps": True}, 1, 150),
        ("PNDMScheduler", {"skip_prk_steps": False}, 4, 150),
        ("LCMScheduler", {"original_inference_steps": 50}, 1, 50),
        ("DDIMScheduler", {"num_train_timesteps": 20}, 1, 20),
        ("EulerAncestralDiscreteScheduler", {}, 1, 150),
    ],
    ids=["PNDM", "PNDM with Runge-Kutta steps", "LCM", "few training steps", "Euler ancestral"],
)
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' own, of numpy
def test_schedulers_and_the_steps_they_take(folders, tmp_path, scheduler, fields, least, most):
    """What is within the bounds is drawn, alone as in a batch; what is not is refused."""
    index = {"scheduler": ["diffusers", scheduler]}
    folder = changed(folders["stable-diffusion"], tmp_path, model_index=index, scheduler__scheduler_config=fields)
    model, _ = loaded(folder)
    model.warm_up()
    for steps in (least - 1, most + 1):
        if steps:
            with pytest.raises(InvalidRequestError, match=f"expected {least} to {most} with this model's scheduler"):
                model.prepare([ImageRequest("a cat", 1, SIZE, steps)])
    fewest = [ImageRequest("a cat", seed, SIZE, least) for seed in (1, 2)]
    together = draw(model, *fewest)
    assert max(apart(image, draw(model, each)[0]) for image, each in zip(together, fewest, strict=True)) <= 2
    assert model.prepare([ImageRequest("a cat", 1)])[0].value.steps == min(50, most)


def test_half_precision_draws_nearly_the_same_one_at_a_time(folders, models):
    model, said = loaded(folders["stable-diffusion"], dtype="bfloat16")
    assert (said.device, said.dtype, said.max_items) == ("cpu", "bfloat16", 1)
    assert 0 < apart(draw(model, CAT)[0], draw(models["stable-diffusion"], CAT)[0]) < 50


def test_a_cpu_draws_few_at_a_time_and_a_pipeline_never_tried_in_batches_one(folders, monkeypatch):
    assert loaded(folders["flux"])[1].max_items is None
    assert loaded(folders["flux"])[1].max_tokens == 4096
    monkeypatch.setattr("modelpool_worker.capabilities.text_to_image._DRAWS_SEVERAL", frozenset())
    assert loaded(folders["flux"])[1].max_items == 1


def test_a_safety_checker_as_older_models_name_its_parts(folders, tmp_path):
    """What it finds is black, and nothing else is."""
    index = {"feature_extractor": ["transformers", "CLIPFeatureExtractor"]}
    folder = changed(folders["safety-checked"], tmp_path, model_index=index)
    model, _ = loaded(folder)
    assert draw(model, CAT)[0].std() > 1
    path = folder / "safety_checker" / "model.safetensors"
    weights = load_file(path)
    weights["concept_embeds_weights"].fill_(-2.0)
    save_file(weights, path, metadata={"format": "pt"})
    model, _ = loaded(folder)
    assert draw(model, CAT)[0].max() == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has a GPU")
def test_a_promised_gpu_that_is_not_there_is_worth_another_try(folders):
    with pytest.raises(RetryLoadError, match="torch finds none"):
        loaded(folders["flux"], gpus=1)


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_every_pipeline_that_is_served_takes_what_this_worker_passes(name):
    pipeline = {each.__name__: each for each in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()}[name]
    takes = inspect.signature(pipeline.__call__).parameters
    passed = {"prompt", "width", "height", "num_inference_steps", "guidance_scale", "generator"}
    assert passed | {"callback_on_step_end", "output_type"} <= set(takes)
    assert not {"image", "control_image"} & set(takes)
    assert not pipeline._load_connected_pipes  # it would fetch another model by name


def test_unloading_forgets_the_model(folders):
    model, _ = loaded(folders["flux"])
    model.unload()
    assert model._pipeline is None
    assert model.accelerator_mib() == 0
