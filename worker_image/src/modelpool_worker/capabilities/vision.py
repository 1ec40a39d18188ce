"""Chats with images by transformers' vision-language models; greedy text equals what ``generate`` writes.

Importing this module imports torch and transformers, which takes seconds: only the load thread does it.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from io import BytesIO
from typing import Any, ClassVar, Final

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, GenerationMixin
from transformers.generation.utils import MULTIMODAL_INPUTS_TO_DROP_OUTSIDE_PREFILL
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from modelpool_worker.capabilities.base import Loaded, LoadRequest, Piece, Prepared
from modelpool_worker.errors import NeverLoadsError, RequestError
from modelpool_worker.generation.decoder import load_decoder
from modelpool_worker.generation.engines import Engine, find_context, find_ends, make_engine
from modelpool_worker.generation.prompt import GenerationPrompt
from modelpool_worker.generation.request import Message, Sampling, TextRequest
from modelpool_worker.generation.solo import try_out
from modelpool_worker.generation.vision_prompts import VisionInputs, VisionPrompts, VisionReader
from modelpool_worker.generation.vocabulary import Vocabulary
from modelpool_worker.generation.warm_up import warm_up
from modelpool_worker.imaging.pixel_budget import PixelBudget
from modelpool_worker.models import model_files
from modelpool_worker.models.devices import choose_device, choose_dtype, name_of, reserved_mib
from modelpool_worker.models.memory import free_bytes
from modelpool_worker.models.pretrained import build_skeleton, check_weights, read_config
from modelpool_worker.models.processors import load_processor

#: What of the free memory the processed images of waiting requests may take.
_WAITING_SHARE: Final = 0.125
_WARM_UP_SIDE: Final = 64
_WARM_UP_TOKENS: Final = 2
#: The functions by which the library makes a model's inputs, of the prompt and of each token.
_PREPARED_BY: Final = (
    "prepare_inputs_for_generation",
    "_prepare_position_ids_for_generation",
    "_update_model_kwargs_for_generation",
)


class Vision:
    """Messages with images → text, token by token."""

    name: ClassVar[str] = "vision"

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._prompts: VisionPrompts | None = None
        self._device = torch.device("cpu")

    def load(self, request: LoadRequest) -> Loaded:
        """Load from a local folder, safetensors only, no code of the model's author."""
        self._device = choose_device(request.gpus)
        torch.set_num_threads(request.threads)
        files = model_files.check(request.folder, request.source)
        config = _config(files)
        check_weights(build_skeleton(AutoModelForImageTextToText, config, files), files)
        dtype = choose_dtype(request.dtype, self._device)
        processor = load_processor(files)
        vocabulary = Vocabulary(processor.tokenizer.backend_tokenizer)
        reader = VisionReader(processor, vocabulary, dtype, files.source)
        try:
            probe = _probe(reader, find_context(config), files.source)
            calculate = partial(try_out, ids=probe.ids, extra=probe.extra)
            model = load_decoder(AutoModelForImageTextToText, config, files, dtype, self._device, calculate)
            alone = not reads_plainly(type(model), probe.extra)
            engine = make_engine(model, vocabulary, find_ends(model, processor.tokenizer), alone=alone)
            budget = PixelBudget(int(free_bytes(torch.device("cpu")) * _WAITING_SHARE))
            self._prompts = VisionPrompts(reader, engine.context_tokens, budget)
        except BaseException:
            reader.close()
            raise
        self._engine = engine
        return Loaded(
            str(self._device),
            name_of(dtype),
            context_tokens=engine.context_tokens,
            max_items=engine.max_items,
            max_tokens=engine.max_tokens,
        )

    def warm_up(self) -> None:
        """Write a short text about a small image, beside texts without one."""
        (shown,) = self._ready().prepare([TextRequest(_WARM_UP_SAMPLING, _WARM_UP_MESSAGES)])
        warm_up(self._loaded().rows, [shown.value])

    def prepare(self, inputs: Sequence[TextRequest]) -> list[Prepared]:
        """Turn requests into prompts; those that share messages share what was made of them."""
        return self._ready().prepare(inputs)

    def turn(self, joins: Mapping[int, GenerationPrompt], leaves: Collection[int]) -> list[Piece]:
        """Take a turn; every piece's value is a ``TextDelta``."""
        return self._loaded().rows.turn(joins, leaves)

    def reset(self) -> None:
        """Drop every row."""
        self._loaded().rows.reset()

    def unload(self) -> None:
        """Drop model and processor, and end what renders the chat template."""
        if self._prompts is not None:
            self._prompts.close()
        self._engine = self._prompts = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def accelerator_mib(self) -> int:
        """Return what torch has reserved on the accelerator, MiB."""
        return reserved_mib(self._device)

    def _loaded(self) -> Engine:
        if self._engine is None:
            raise RuntimeError("no model is loaded; expected load() first")
        return self._engine

    def _ready(self) -> VisionPrompts:
        if self._prompts is None:
            raise RuntimeError("no model is loaded; expected load() first")
        return self._prompts


def reads_plainly(model_class: type, extra: Mapping[str, Any]) -> bool:
    """Return whether a prompt is read with ``extra`` inputs, then token by token without, and that is all.

    So it is where the class leaves positions, masks and inputs to the library's usual functions, and these pass nothing
    of ``extra`` on after the prompt. Then ``generate`` does what rows do that step together.
    """
    usual = all(getattr(model_class, name) is getattr(GenerationMixin, name) for name in _PREPARED_BY)
    masks = hasattr(model_class, "create_masks_for_generate")
    once = all(
        name in MULTIMODAL_INPUTS_TO_DROP_OUTSIDE_PREFILL and isinstance(value, torch.Tensor)
        for name, value in extra.items()
    )
    return usual and not masks and once


def _probe(reader: VisionReader, context: int, source: str) -> VisionInputs:
    try:
        return reader.read(_WARM_UP_MESSAGES, context)
    except RequestError as error:
        raise NeverLoadsError(
            f"the processor or chat template of {source} does not take an image and a text; expected those that the "
            "model came with"
        ) from error


def _config(files: model_files.ModelFiles) -> Any:
    config = read_config(files)
    fits = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and not getattr(config, "is_encoder_decoder", False)
    if not fits:
        raise NeverLoadsError(
            f"{files.source} is a {config.model_type} model, which does not fit capability vision; expected a "
            "vision-language model such as idefics3, llava or qwen2_5_vl"
        )
    return config


def _picture() -> bytes:
    """Return a small image that is not of one colour."""
    file = BytesIO()
    Image.radial_gradient("L").resize((_WARM_UP_SIDE, _WARM_UP_SIDE)).convert("RGB").save(file, "png")
    return file.getvalue()


_WARM_UP_MESSAGES: Final = (Message("user", (_picture(), "what is this?")),)
_WARM_UP_SAMPLING: Final = Sampling(temperature=0, max_tokens=_WARM_UP_TOKENS)
