"""Loading what makes a model's inputs of text and images. Imports transformers."""

from typing import Any

from transformers import AutoProcessor

from modelpool_worker.errors import NeverLoadsError
from modelpool_worker.models.model_files import ModelFiles
from modelpool_worker.models.pretrained import check_fast, disarm_tokenizer


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
