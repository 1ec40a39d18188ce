"""Text embedding by transformers and torch, equal to what sentence-transformers computes.

Importing this module imports torch and transformers, which takes seconds: only the load thread does it.
Texts longer than the model's ``max_seq_length`` are cut there, as sentence-transformers does.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from modelpool_worker.capabilities.base import Loaded, LoadRequest, Prepared
from modelpool_worker.embedding.pooling import pool
from modelpool_worker.embedding.sentence_folder import Recipe, read_recipe
from modelpool_worker.errors import InvalidRequestError, NeverLoadsError
from modelpool_worker.models import model_files
from modelpool_worker.models.devices import choose_device, choose_dtype, name_of, reserved_mib
from modelpool_worker.models.pretrained import build_skeleton, check_weights, load_model, load_tokenizer, read_config

Vector = NDArray[np.float32]

_MAX_TOKENS: Final = 32_768


class TextEmbedding:
    """Texts or token ids → vectors (float32, as long as the model's hidden size)."""

    name: ClassVar[str] = "text-embedding"

    def __init__(self) -> None:
        self._model: Any = None
        self._tokenizer: Any = None
        self._recipe = Recipe()
        self._device = torch.device("cpu")
        self._max_tokens = _MAX_TOKENS
        self._vocabulary = 0

    def load(self, request: LoadRequest) -> Loaded:
        """Load from a local folder, safetensors only, no code of the model's author."""
        self._device = choose_device(request.gpus)
        torch.set_num_threads(request.threads)
        self._recipe = read_recipe(request.folder, request.source)
        folder = request.folder / self._recipe.subfolder
        files = model_files.check(folder, request.source)
        config = _config(files)
        dtype = choose_dtype(request.dtype, self._device)
        skeleton = build_skeleton(AutoModel, config, files)
        if "input_ids" not in inspect.signature(skeleton.forward).parameters:
            raise NeverLoadsError(f"{files.source} does not take text; expected a text encoder for text-embedding")
        check_weights(skeleton, files)
        self._model = load_model(AutoModel, config, files, dtype, self._device)
        self._tokenizer = _tokenizer(files, self._recipe)
        self._max_tokens = _max_tokens(self._recipe, self._tokenizer, config)
        # tokenizer.json may bring a limit and a fixed padding of its own, which are not the model's
        backend = self._tokenizer.backend_tokenizer
        backend.no_padding()
        backend.enable_truncation(self._max_tokens, direction=self._tokenizer.truncation_side)
        self._vocabulary = int(getattr(config, "vocab_size", 0)) or len(self._tokenizer)
        vector_size = len(self.run_batch([self.prepare(["size"])[0].value], lambda: True)[0])
        return Loaded(str(self._device), name_of(dtype), vector_size)

    def warm_up(self) -> None:
        """Embed a short and a longer text together."""
        values = [each.value for each in self.prepare(["warm up", "a somewhat longer text to warm up with"])]
        for vector in self.run_batch(values, lambda: True):
            if not np.isfinite(vector).all():
                raise NeverLoadsError("the model's vectors are not finite numbers; try dtype float32")

    def prepare(self, inputs: Sequence[str | list[int]]) -> list[Prepared]:
        """Turn texts into token ids. Token ids are taken as they are: the special tokens are the caller's."""
        texts = [self._recipe.prompt + text for text in inputs if isinstance(text, str)]
        encoded = iter(self._encode(texts))
        prepared = [next(encoded) if isinstance(item, str) else self._checked(item) for item in inputs]
        return [Prepared(ids, cost=len(ids), tokens=len(ids)) for ids in prepared]

    def run_batch(self, values: Sequence[list[int]], wanted: Callable[[], bool]) -> list[Vector]:
        """Embed lists of token ids; the result does not depend on what else is in the batch."""
        longest = max(len(ids) for ids in values)
        left = self._tokenizer.padding_side == "left"
        input_ids = torch.full((len(values), longest), int(self._tokenizer.pad_token_id or 0), dtype=torch.int64)
        mask = torch.zeros((len(values), longest), dtype=torch.int64)
        for row, ids in enumerate(values):
            columns = slice(longest - len(ids), longest) if left else slice(0, len(ids))
            input_ids[row, columns] = torch.tensor(ids, dtype=torch.int64)
            mask[row, columns] = 1
        input_ids, mask = input_ids.to(self._device), mask.to(self._device)
        with torch.inference_mode():
            hidden = self._model(input_ids=input_ids, attention_mask=mask, return_dict=True).last_hidden_state
            vectors = pool(hidden, mask, self._recipe.pooling)
            if self._recipe.normalize:
                vectors = torch.nn.functional.normalize(vectors, p=2, dim=1)
            rows: Vector = vectors.float().cpu().numpy()
        return list(rows)

    def unload(self) -> None:
        """Drop model and tokenizer."""
        self._model = self._tokenizer = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def accelerator_mib(self) -> int:
        """Return what torch has reserved on the accelerator, MiB."""
        return reserved_mib(self._device)

    def _encode(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        # the tokenizer underneath: without offsets it takes a third of the time, and holds the interpreter less
        return [encoding.ids for encoding in self._tokenizer.backend_tokenizer.encode_batch_fast(texts)]

    def _checked(self, ids: list[int]) -> list[int]:
        if len(ids) > self._max_tokens:
            raise InvalidRequestError(
                f"an input has {len(ids)} tokens, this model takes at most {self._max_tokens}", param="input"
            )
        if max(ids) >= self._vocabulary:
            raise InvalidRequestError(
                f"a token id is not in this model's vocabulary; expected 0 to {self._vocabulary - 1}", param="input"
            )
        return ids


def _config(files: model_files.ModelFiles) -> Any:
    config = read_config(files)
    has_vision = getattr(config, "vision_config", None) is not None
    if type(config) not in MODEL_MAPPING or has_vision or getattr(config, "is_encoder_decoder", False):
        raise NeverLoadsError(
            f"{files.source} is a {config.model_type} model, which does not fit capability text-embedding; expected a "
            "text encoder such as bert, roberta, xlm-roberta, mpnet, modernbert or qwen3"
        )
    return config


def _tokenizer(files: model_files.ModelFiles, recipe: Recipe) -> Any:
    tokenizer = load_tokenizer(files.folder, files.source)
    if recipe.lower_case:
        from tokenizers import normalizers

        backend = tokenizer.backend_tokenizer
        steps = [normalizers.Lowercase(), *([backend.normalizer] if backend.normalizer is not None else [])]
        backend.normalizer = normalizers.Sequence(steps)
    return tokenizer


def _max_tokens(recipe: Recipe, tokenizer: Any, config: Any) -> int:
    said = recipe.max_seq_length or tokenizer.model_max_length
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        said = min(said, positions)
    return int(min(said, _MAX_TOKENS))
