"""The classes that a checked pipeline folder names, and whether their weights fit. Imports diffusers."""

from collections import Counter
from math import prod
from typing import Any, Final

import diffusers
import torch
import transformers
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

from modelpool_worker.errors import NeverLoadsError
from modelpool_worker.models.diffusion_folder import INDEX, Component, DiffusionFolder
from modelpool_worker.models.model_files import ModelFiles
from modelpool_worker.models.pretrained import check_weights, read_config

_WITHOUT_WEIGHTS: Final = (
    diffusers.SchedulerMixin,
    transformers.PreTrainedTokenizerBase,
    transformers.FeatureExtractionMixin,
    transformers.ImageProcessingMixin,
    transformers.ProcessorMixin,
)
#: Tables that a model makes by itself, such as positions: more numbers than this belong to no model.
_MAX_TABLES: Final = 64 * 1024 * 1024


def check_classes(folder: DiffusionFolder) -> type[Any]:
    """Return the pipeline's class; raise ``NeverLoadsError`` where a component's class or weights do not fit.

    Every model is built without memory for its weights, and compared with the headers of its weight files.
    """
    for component in folder.components:
        found = _find(component, folder.source)
        if component.files is None:
            continue
        if issubclass(found, diffusers.ModelMixin):
            _check_diffusers(found, component.files)
        else:
            _check_transformers(found, component.files)
    # one of a short list: to ask the library which of its pipelines draw from text would import them all, 1.4 s
    return getattr(diffusers, folder.pipeline)  # type: ignore[no-any-return]


def _find(component: Component, source: str) -> type[Any]:
    if component.library == "stable_diffusion":
        return StableDiffusionSafetyChecker
    library = diffusers if component.library == "diffusers" else transformers
    # the name that older versions gave to image processors
    name = component.class_name.replace("FeatureExtractor", "ImageProcessor")
    found = getattr(library, name, None)
    models = (diffusers.ModelMixin, transformers.PreTrainedModel)
    expected = _WITHOUT_WEIGHTS if component.files is None else models
    if not isinstance(found, type) or not issubclass(found, expected):
        raise NeverLoadsError(
            f"{INDEX} of {source} names a class for {component.name} that {component.library} does not have as a part "
            'of pipelines; expected for example ["diffusers", "UNet2DConditionModel"]'
        )
    return found


def _check_diffusers(model: type[Any], files: ModelFiles) -> None:
    try:
        with torch.device("meta"):
            skeleton = model.from_config(dict(files.config))
    except Exception as error:  # sizes that contradict each other fail in many ways
        raise NeverLoadsError(
            f"config.json of {files.source} describes no model ({type(error).__name__}); copy the model again"
        ) from error
    _check_tables(skeleton, files)
    # by shape alone: some weights carry older names, which diffusers translates at loading
    wanted = Counter(tuple(parameter.shape) for parameter in skeleton.parameters())
    held = Counter(files.shapes.values())
    if missing := wanted - held:
        shape, number = next(iter(missing.items()))
        shown = "×".join(str(length) for length in shape) or "1"
        raise NeverLoadsError(
            f"config.json of {files.source} asks for {number} more tensors of shape {shown} than its weights hold; "
            "expected weights and config of the same model"
        )


def _check_transformers(model: type[Any], files: ModelFiles) -> None:
    config = read_config(files)
    if not isinstance(config, model.config_class):
        raise NeverLoadsError(
            f"config.json of {files.source} is of another kind of model than {INDEX} names; copy the model again"
        )
    try:
        with torch.device("meta"):
            skeleton = model(config)
    except Exception as error:
        raise NeverLoadsError(
            f"config.json of {files.source} describes no model ({type(error).__name__}); copy the model again"
        ) from error
    _check_tables(skeleton, files)
    check_weights(skeleton, files)


def _check_tables(skeleton: Any, files: ModelFiles) -> None:
    size = sum(prod(buffer.shape) for buffer in skeleton.buffers())
    if size > _MAX_TABLES + sum(prod(shape) for shape in files.shapes.values()):
        raise NeverLoadsError(
            f"config.json of {files.source} asks for tables of {size} numbers, far more than its weights hold; "
            "expected weights and config of the same model"
        )
