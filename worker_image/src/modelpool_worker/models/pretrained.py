"""Loading by transformers, every step checked first and every failure one of our sentences. Imports transformers."""

from collections.abc import Callable, Sequence
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any, Final

import structlog
import torch
from transformers import AutoConfig, AutoTokenizer
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging as transformers_logging

from modelpool_worker.errors import NeverLoadsError
from modelpool_worker.models.model_files import ModelFiles
from modelpool_worker.models.shapes import Shape, check_shapes

_log = structlog.get_logger(__name__)

#: What transformers says when it cannot make the model's tensors of the file's.
_CONVERSION: Final = "automatic conversion of the weights"


def read_config(files: ModelFiles) -> Any:
    """Return transformers' config of a checked folder; raise ``NeverLoadsError`` for one it does not know."""
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    kind = files.config.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise NeverLoadsError(
            f"config.json of {files.source} names a model_type that this worker does not know; expected one that "
            "transformers knows, for example bert"
        )
    try:
        return AutoConfig.from_pretrained(str(files.folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # its checks raise errors of many kinds; all of them mean a wrong config
        raise NeverLoadsError(
            f"config.json of {files.source} was refused by transformers ({type(error).__name__}); copy the model again"
        ) from error


def build_skeleton(auto: Any, config: Any, files: ModelFiles) -> Any:
    """Build the model that ``auto`` (such as AutoModel) makes of the config, without memory for its weights.

    Raises ``NeverLoadsError`` where the config describes none.
    """
    try:
        with torch.device("meta"):
            return auto.from_config(config, trust_remote_code=False)
    except Exception as error:  # sizes that contradict each other fail in many ways
        raise NeverLoadsError(
            f"config.json of {files.source} describes no model ({type(error).__name__}); copy the model again"
        ) from error


def check_weights(skeleton: Any, files: ModelFiles) -> None:
    """Raise ``NeverLoadsError`` unless the weights hold what the skeleton wants, before anything is allocated.

    Names are compared as transformers renames them at loading. What it makes of several tensors (a mixture's experts)
    is compared by the number of elements.
    """
    wanted: dict[str, Shape] = {name: tuple(each.shape) for name, each in skeleton.named_parameters()}
    held, converted = _renamed(skeleton, files)
    missing = {name for name in wanted if name not in held}
    if converted and sum(prod(wanted[name]) for name in missing) <= converted:
        wanted = {name: shape for name, shape in wanted.items() if name not in missing}
    check_shapes(wanted, held, prefix=skeleton.base_model_prefix, source=files.source)


def load_model(auto: Any, config: Any, files: ModelFiles, dtype: torch.dtype, device: torch.device) -> Any:
    """Load the checked folder's weights, safetensors only, no code of the model's author."""
    try:
        model, report = auto.from_pretrained(
            str(files.folder),
            config=config,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told by the report instead
        )
    except RuntimeError as error:
        # tensors that cannot be put together; memory that is not there is another matter
        if _CONVERSION not in str(error):
            raise
        raise _misfit(files) from error
    # a pooler is often not saved, and not used for embeddings
    if report["mismatched_keys"] or any(not name.startswith("pooler.") for name in report["missing_keys"]):
        raise _misfit(files)
    return model.to(device).eval()


def load_changed(
    auto: Any,
    config: Any,
    files: ModelFiles,
    dtype: torch.dtype,
    device: torch.device,
    changes: Sequence[Callable[[Any], bool]],
) -> Any:
    """Load a model and change it, by the first of ``changes`` that says True.

    One that says False has made the model useless: it is loaded again for the next one, and last left as it is.
    """
    for change in changes:
        model = load_model(auto, config, files, dtype, device)
        if change(model):
            return model
        del model  # before the next one: both at once would take more memory than either needs
        _log.warning("the model is loaded again, in a slower form", source=files.source)
    return load_model(auto, config, files, dtype, device)


def convert(model: Any, dtype: torch.dtype) -> None:
    """Change the format of a loaded model's weights in place, tensor by tensor: as if it had been loaded in it.

    What was not saved keeps its own, unlike with ``model.to``: rounded rotations would turn late positions wrong.
    """
    saved = model.state_dict().keys()
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if name in saved and tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)


def load_tokenizer(folder: Path, source: str) -> Any:
    """Return the folder's tokenizer; raise ``NeverLoadsError`` where there is none or only a slow one."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises bare Exception for a broken tokenizer.json
        raise NeverLoadsError(
            f"the tokenizer of {source} cannot be loaded ({type(error).__name__}); expected tokenizer.json beside "
            "config.json"
        ) from error
    check_fast(tokenizer, source)
    return tokenizer


def check_fast(tokenizer: Any, source: str) -> None:
    """Raise ``NeverLoadsError`` for a tokenizer that is not one of the tokenizers library."""
    if not tokenizer.is_fast:
        raise NeverLoadsError(f"{source} has no tokenizer.json; save its tokenizer once with a current transformers")


def disarm_tokenizer(tokenizer: Any) -> None:
    """Take off the limit and the fixed padding that tokenizer.json may bring, which are not the model's."""
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()


def _misfit(files: ModelFiles) -> NeverLoadsError:
    return NeverLoadsError(
        f"the weights of {files.source} lack tensors that its config.json asks for; expected weights and config of the "
        "same model"
    )


def _renamed(skeleton: Any, files: ModelFiles) -> tuple[dict[str, Shape], int]:
    """Return the shapes by the names the model gives them, and the number of elements that loading converts."""
    mapping = get_model_conversion_mapping(skeleton)
    renamings = [each for each in mapping if isinstance(each, WeightRenaming)]
    converters = [each for each in mapping if isinstance(each, WeightConverter)]
    names = skeleton.state_dict()
    held: dict[str, Shape] = {}
    converted = 0
    for name, shape in files.shapes.items():
        new, pattern = rename_source_key(name, renamings, converters, skeleton.base_model_prefix, names)
        if pattern is None or name in names:
            held[name if name in names else new] = shape
        else:
            converted += prod(shape)
    return held, converted
