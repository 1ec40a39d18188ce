"""A folder as diffusers saves pipelines, checked before diffusers sees it: its JSON files and its weights' headers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from modelpool_worker.errors import NeverLoadsError
from modelpool_worker.models import model_files
from modelpool_worker.models.model_files import ModelFiles

INDEX: Final = "model_index.json"

#: What draws from nothing but a prompt, by the arguments that this worker passes. Whatever else a folder names, such
#: as editing, control images, video, or a pipeline that fetches another one, is not served.
PIPELINES: Final = frozenset(
    {
        "AuraFlowPipeline",
        "ChromaPipeline",
        "CogView4Pipeline",
        "FluxPipeline",
        "LatentConsistencyModelPipeline",
        "Lumina2Pipeline",
        "QwenImagePipeline",
        "SanaPipeline",
        "StableDiffusion3Pipeline",
        "StableDiffusionPipeline",
        "StableDiffusionXLPipeline",
        "ZImagePipeline",
    }
)
#: The one class outside the two libraries' roots: it stands beside its pipeline in diffusers.
_SAFETY_CHECKER: Final = ("stable_diffusion", "StableDiffusionSafetyChecker")
_WEIGHTS: Final[Mapping[str, str]] = {
    "diffusers": "diffusion_pytorch_model.safetensors",
    "transformers": model_files.WEIGHTS,
    "stable_diffusion": model_files.WEIGHTS,
}
_WITHOUT_WEIGHTS: Final = ("Tokenizer", "TokenizerFast", "Processor", "ImageProcessorFast", "Extractor", "Scheduler")
_SCHEDULER_CONFIG: Final = "scheduler_config.json"
_CONFIGS: Final = (_SCHEDULER_CONFIG, "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
_MAX_COMPONENTS: Final = 32
#: Far above the 1,000 of any scheduler: a table of so many numbers is still small.
_MAX_SCHEDULER_NUMBER: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Component:
    """A part of a pipeline: which class of which library, and its checked weights; None for what has none."""

    name: str
    library: str
    class_name: str
    files: ModelFiles | None


@dataclass(frozen=True, slots=True)
class DiffusionFolder:
    """A checked folder: the name of its pipeline's class, and its components."""

    folder: Path
    source: str
    pipeline: str
    components: tuple[Component, ...]


def check(folder: Path, source: str) -> DiffusionFolder:
    """Check a pipeline's folder; raise ``NeverLoadsError`` with the true reason where it may not or cannot be loaded.

    ``source`` is how its user calls the model; it appears in the sentences.
    """
    if not folder.is_dir():
        raise NeverLoadsError(f"{source} is not a folder; expected a folder with {INDEX}, as diffusers saves pipelines")
    if not (folder / INDEX).exists():
        raise NeverLoadsError(
            f"{source} has no {INDEX}; text-to-image expected a folder as saved by a diffusers pipeline's "
            "save_pretrained(), not a single checkpoint file"
        )
    index = model_files.read_json(folder, INDEX, source)
    if not isinstance(index, dict):
        raise NeverLoadsError(f'{INDEX} of {source} is not a JSON object; expected for example {{"_class_name": …}}')
    model_files.refuse_code(index, INDEX, source)
    pipeline = index.get("_class_name")
    if not isinstance(pipeline, str) or pipeline not in PIPELINES:
        raise NeverLoadsError(
            f"{INDEX} of {source} names no pipeline that this worker serves as text-to-image; expected one of "
            f"{', '.join(sorted(PIPELINES))}"
        )
    if index.get("custom_pipeline") is not None:
        raise _brings_code(source, "custom_pipeline")
    _refuse_modules(folder, source)
    return DiffusionFolder(folder, source, pipeline, tuple(_components(folder, index, source)))


def _components(folder: Path, index: Mapping[str, Any], source: str) -> Iterator[Component]:
    named = {name: value for name, value in index.items() if isinstance(value, list) and not name.startswith("_")}
    if not named or len(named) > _MAX_COMPONENTS:
        raise NeverLoadsError(
            f"{INDEX} of {source} names {len(named)} components; expected 1 to {_MAX_COMPONENTS}, such as unet"
        )
    for name, value in named.items():
        if not name.isidentifier() or not name.isascii():
            raise NeverLoadsError(f"{INDEX} of {source} has a component whose name is none; expected for example unet")
        if value == [None, None]:
            continue
        library, class_name = _pair(value, name, source)
        place = folder / name
        if not place.is_dir():
            raise NeverLoadsError(f"{source} has no folder {name}, which {INDEX} names; copy the whole model folder")
        _refuse_modules(place, f"{name} of {source}")
        yield Component(name, library, class_name, _files(place, library, class_name, f"{name} of {source}"))


def _pair(value: list[Any], name: str, source: str) -> tuple[str, str]:
    if len(value) == 2 and all(isinstance(item, str) and item.isidentifier() for item in value):
        library, class_name = value
        if library in ("diffusers", "transformers") or (library, class_name) == _SAFETY_CHECKER:
            return library, class_name
    raise NeverLoadsError(
        f"{INDEX} of {source} takes {name} from elsewhere than diffusers and transformers, and this worker runs no "
        'other code; expected for example ["diffusers", "UNet2DConditionModel"]'
    )


def _files(place: Path, library: str, class_name: str, source: str) -> ModelFiles | None:
    if not class_name.endswith(_WITHOUT_WEIGHTS):
        return model_files.check(place, source, _WEIGHTS[library])
    for name in _CONFIGS:
        if (place / name).exists():
            config = model_files.read_json(place, name, source)
            model_files.refuse_code(config, name, source)
            if name == _SCHEDULER_CONFIG:
                _refuse_large_numbers(config, name, source)
    return None


def _refuse_large_numbers(config: Any, name: str, source: str) -> None:
    if not isinstance(config, dict):
        raise NeverLoadsError(f"{name} of {source} is not a JSON object; copy the model again")
    for value in config.values():
        if isinstance(value, int | float) and not -_MAX_SCHEDULER_NUMBER <= value <= _MAX_SCHEDULER_NUMBER:
            raise NeverLoadsError(
                f"{name} of {source} holds a number beyond {_MAX_SCHEDULER_NUMBER}; expected about 1000 training steps"
            )


def _refuse_modules(folder: Path, source: str) -> None:
    # diffusers looks for several names, one of them None.py; a model needs none of its own
    if any(path.suffix == ".py" for path in folder.iterdir()):
        raise _brings_code(source, "a Python file")


def _brings_code(source: str, what: str) -> NeverLoadsError:
    return NeverLoadsError(
        f"{source} has {what}: the model brings its own Python code, which this worker never runs; use a pipeline "
        "that diffusers knows by itself"
    )
