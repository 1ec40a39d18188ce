"""Loading what makes a model's inputs of text and images. Imports transformers."""

from collections.abc import Iterator
from typing import Any, Final

from transformers import AutoImageProcessor, AutoProcessor

from modelpool_worker.errors import NeverLoadsError
from modelpool_worker.models.model_files import ModelFiles
from modelpool_worker.models.pretrained import check_fast, disarm_tokenizer

#: Pixels of a side, and patches of an image, as a processor's configuration may ask for.
_MAX_SIDE: Final = 4096
_MAX_PATCHES: Final = 16_384


def load_image_processor(files: ModelFiles) -> Any:
    """Return what scales images for the checked folder's model; raise ``NeverLoadsError`` where there is none.

    What it makes of an image is bounded: its sizes are checked here.
    """
    try:
        processor = AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            str(files.folder), local_files_only=True, trust_remote_code=False
        )
        sizes = processor.to_dict()
    except Exception as error:  # broken files fail in many ways
        raise NeverLoadsError(
            f"the image processor of {files.source} cannot be loaded ({type(error).__name__}); expected "
            "preprocessor_config.json or processor_config.json beside config.json"
        ) from error
    sides = [side for name in ("size", "crop_size", "pad_size") for side in _numbers(sizes.get(name))]
    patches = list(_numbers(sizes.get("max_num_patches")))
    if max(sides, default=1) > _MAX_SIDE or max(patches, default=1) > _MAX_PATCHES:
        raise NeverLoadsError(
            f"the image processor of {files.source} makes images too large to be served; expected sides of at most "
            f"{_MAX_SIDE} pixels and at most {_MAX_PATCHES} patches"
        )
    return processor


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _numbers(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _numbers(inner)
    elif isinstance(value, int | float):
        yield value


def load_processor(files: ModelFiles) -> Any:
    """Return the checked folder's processor; raise ``NeverLoadsError`` where there is none for text and images."""
    try:
        processor = AutoProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            str(files.folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # broken files fail in many ways
        raise NeverLoadsError(
            f"the processor of {files.source} cannot be loaded ({type(error).__name__}); expected "
            "processor_config.json or preprocessor_config.json, and tokenizer.json beside config.json"
        ) from error
    # where it finds no processor, the library returns a tokenizer instead
    if getattr(processor, "tokenizer", None) is None or getattr(processor, "image_processor", None) is None:
        raise NeverLoadsError(
            f"{files.source} has no processor for text and images; expected processor_config.json or "
            "preprocessor_config.json beside config.json"
        )
    check_fast(processor.tokenizer, files.source)
    disarm_tokenizer(processor.tokenizer)
    return processor
