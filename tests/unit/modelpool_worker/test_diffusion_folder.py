"""A pipeline's folder is refused, with the true reason, before diffusers sees it."""

import json
import shutil

import pytest

from modelpool_worker.errors import NeverLoadsError
from modelpool_worker.models.diffusion_folder import check
from tiny_models.diffusion import build

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stable-diffusion")
    build(folder)
    return folder


@pytest.fixture
def folder(built, tmp_path):
    """A copy to be changed."""
    return shutil.copytree(built, tmp_path / "model")


def refused(folder):
    with pytest.raises(NeverLoadsError) as error:
        check(folder, "file:///m")
    return str(error.value)


def change(folder, name, **fields):
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_whole_folder_is_described(built):
    checked = check(built, "file:///m")
    assert checked.pipeline == "StableDiffusionPipeline"
    assert {
        component.name: (component.class_name, component.files is not None) for component in checked.components
    } == {
        "scheduler": ("DDIMScheduler", False),
        "text_encoder": ("CLIPTextModel", True),
        "tokenizer": ("CLIPTokenizer", False),
        "unet": ("UNet2DConditionModel", True),
        "vae": ("AutoencoderKL", True),
    }


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"unet": ["os", "system"]}, "takes unet from elsewhere than diffusers and transformers"),
        ({"unet": ["diffusers.utils", "UNet2DConditionModel"]}, "takes unet from elsewhere"),
        ({"unet": ["my_unet", "UNet"]}, "takes unet from elsewhere"),
        ({"unet": ["stable_diffusion", "UNet2DConditionModel"]}, "takes unet from elsewhere"),
        ({"unet": ["diffusers", None]}, "takes unet from elsewhere"),
        ({"unet": [["diffusers"], "UNet2DConditionModel"]}, "takes unet from elsewhere"),
        ({"unet": ["diffusers"]}, "takes unet from elsewhere"),
        ({"../unet": ["diffusers", "UNet2DConditionModel"]}, "has a component whose name is none"),
        ({"controlnet": ["diffusers", "ControlNetModel"]}, "has no folder controlnet"),
        ({f"unet{i}": ["diffusers", "UNet2DConditionModel"] for i in range(40)}, "names 48 components"),
        ({"_class_name": "StableDiffusionImg2ImgPipeline"}, "names no pipeline that this worker serves"),
        ({"_class_name": "StableDiffusionControlNetPipeline"}, "names no pipeline that this worker serves"),
        ({"_class_name": "KandinskyV22CombinedPipeline"}, "names no pipeline that this worker serves"),
        ({"_class_name": ["pipeline", "MyPipeline"]}, "names no pipeline that this worker serves"),
        ({"_class_name": None}, "names no pipeline that this worker serves"),
        ({"custom_pipeline": "org/code"}, "custom_pipeline: the model brings its own Python code"),
        ({"auto_map": {"AutoModel": "code.Model"}}, "auto_map: the model brings its own Python code"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_an_index_that_leads_elsewhere(folder, fields, sentence):
    change(folder, "model_index.json", **fields)
    said = refused(folder)
    assert sentence in said
    assert "expected" in said or "use a" in said or "copy" in said


@pytest.mark.parametrize(
    "content", ["[]", '"index"', "{", "{}", ""], ids=["list", "string", "broken", "empty", "nothing"]
)
def test_an_index_that_is_none(folder, content):
    (folder / "model_index.json").write_text(content)
    assert "model_index.json of file:///m" in refused(folder)


def test_a_folder_that_is_no_pipeline(tmp_path):
    assert "file:///m has no model_index.json" in refused(tmp_path)
    assert "file:///m is not a folder" in refused(tmp_path / "missing")


@pytest.mark.parametrize("place", ["pipeline.py", "None.py", "unet/diffusers.py", "vae/extra.py"])
def test_code_beside_the_weights(folder, place):
    """Also ``None.py``: diffusers takes a file of that name for a pipeline of the model's author."""
    (folder / place).write_text("print('hello')")
    assert "brings its own Python code" in refused(folder)


@pytest.mark.parametrize(
    ("component", "pickle", "weights"),
    [
        ("unet", "diffusion_pytorch_model.bin", "diffusion_pytorch_model.safetensors"),
        ("text_encoder", "pytorch_model.bin", "model.safetensors"),
    ],
)
def test_pickles_are_refused_by_name(folder, component, pickle, weights):
    (folder / component / weights).rename(folder / component / pickle)
    said = refused(folder)
    assert f"{component} of file:///m has {pickle} and no {weights}" in said
    assert "never read" in said


def test_weights_that_are_cut_short(folder):
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert "diffusion_pytorch_model.safetensors of vae of file:///m is cut short" in refused(folder)


@pytest.mark.parametrize(
    ("name", "fields", "sentence"),
    [
        ("unet/config.json", {"attn_implementation": "org/kernel"}, "sets attn_implementation"),
        ("unet/config.json", {"quantization_config": {"quant_method": "int8"}}, "quantized models are not served"),
        ("unet/config.json", {"layers_per_block": 10**9}, "asks for 1 000 000 000 layers"),
        ("unet/config.json", {"transformer_layers_per_block": [1, 10**9]}, "asks for 1 000 000 000 layers"),
        ("text_encoder/config.json", {"auto_map": {"AutoModel": "code.Model"}}, "auto_map"),
        ("tokenizer/tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["code.T", None]}}, "auto_map"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**12}, "number beyond 1000000"),
        ("scheduler/scheduler_config.json", {"beta_end": float("inf")}, "number beyond 1000000"),
        ("scheduler/scheduler_config.json", {"beta_end": float("nan")}, "number beyond 1000000"),
    ],
    ids=["kernel", "quantized", "layers", "layers in a list", "code", "tokenizer's code", "table", "infinite", "NaN"],
)
def test_configs_of_components(folder, name, fields, sentence):
    change(folder, name, **fields)
    assert sentence in refused(folder)


def test_a_safety_checker_may_be_part_of_it(folder):
    """It comes from diffusers too; here its weights are missing, which is the only thing wrong."""
    (folder / "safety_checker").mkdir()
    change(folder, "model_index.json", safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])
    assert "safety_checker of file:///m has no model.safetensors" in refused(folder)
