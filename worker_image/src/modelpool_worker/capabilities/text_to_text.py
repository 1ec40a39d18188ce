"""Text generation by transformers' decoders, many texts at once; greedy text equals what ``generate`` writes.

Importing this module imports torch and transformers, which takes seconds: only the load thread does it.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from modelpool_worker.capabilities.base import Loaded, LoadRequest, Piece, Prepared
from modelpool_worker.errors import NeverLoadsError
from modelpool_worker.generation.decoder import load_decoder
from modelpool_worker.generation.engines import Engine, find_ends, make_engine
from modelpool_worker.generation.prompt import GenerationPrompt
from modelpool_worker.generation.request import TextRequest
from modelpool_worker.generation.solo import try_out
from modelpool_worker.generation.text_prompts import TextPrompts
from modelpool_worker.generation.vocabulary import Vocabulary
from modelpool_worker.generation.warm_up import warm_up
from modelpool_worker.models import model_files
from modelpool_worker.models.devices import choose_device, choose_dtype, name_of, reserved_mib
from modelpool_worker.models.pretrained import (
    build_skeleton,
    check_weights,
    disarm_tokenizer,
    load_tokenizer,
    read_config,
)


class TextToText:
    """Messages, prompts or token ids → text, token by token."""

    name: ClassVar[str] = "text-to-text"

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._prompts: TextPrompts | None = None
        self._device = torch.device("cpu")

    def load(self, request: LoadRequest) -> Loaded:
        """Load from a local folder, safetensors only, no code of the model's author."""
        self._device = choose_device(request.gpus)
        torch.set_num_threads(request.threads)
        files = model_files.check(request.folder, request.source)
        config = _config(files)
        check_weights(build_skeleton(AutoModelForCausalLM, config, files), files)
        dtype = choose_dtype(request.dtype, self._device)
        tokenizer = load_tokenizer(files.folder, files.source)
        disarm_tokenizer(tokenizer)
        model = load_decoder(AutoModelForCausalLM, config, files, dtype, self._device, try_out)
        vocabulary = Vocabulary(tokenizer.backend_tokenizer)
        engine = make_engine(model, vocabulary, find_ends(model, tokenizer))
        self._prompts = TextPrompts(tokenizer, vocabulary, engine.context_tokens, int(config.vocab_size))
        self._engine = engine
        return Loaded(
            str(self._device),
            name_of(dtype),
            context_tokens=engine.context_tokens,
            max_items=engine.max_items,
            max_tokens=engine.max_tokens,
        )

    def warm_up(self) -> None:
        """Write two short texts together."""
        warm_up(self._loaded().rows)

    def prepare(self, inputs: Sequence[TextRequest]) -> list[Prepared]:
        """Turn requests into prompts; those that share a prompt share its token ids, which are counted once."""
        if self._prompts is None:
            raise RuntimeError("no model is loaded; expected load() first")
        return self._prompts.prepare(inputs)

    def turn(self, joins: Mapping[int, GenerationPrompt], leaves: Collection[int]) -> list[Piece]:
        """Take a turn; every piece's value is a ``TextDelta``."""
        return self._loaded().rows.turn(joins, leaves)

    def reset(self) -> None:
        """Drop every row."""
        self._loaded().rows.reset()

    def unload(self) -> None:
        """Drop model and tokenizer, and end what renders the chat template."""
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


def _config(files: model_files.ModelFiles) -> Any:
    config = read_config(files)
    kind = config.model_type
    if getattr(config, "vision_config", None) is not None:
        raise NeverLoadsError(f"{files.source} is a {kind} model, which also sees; use capability vision for it")
    named = files.config.get("architectures") or []
    model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    fits = model_class is not None and not getattr(config, "is_encoder_decoder", False)
    if not fits or (named and model_class.__name__ not in named):
        raise NeverLoadsError(
            f"{files.source} is a {kind} model without a head that writes text, which does not fit capability "
            "text-to-text; expected a decoder such as llama, qwen3 or mistral, saved with its head"
        )
    return config
