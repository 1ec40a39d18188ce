"""Any text encoder that transformers knows, on padded batches. Importing this imports transformers."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from modelpool_worker.embedding.packing import divide
from modelpool_worker.embedding.pooling import in_order, pool
from modelpool_worker.errors import NeverLoadsError
from modelpool_worker.models.model_files import ModelFiles
from modelpool_worker.models.pretrained import (
    build_skeleton,
    check_weights,
    convert,
    load_model,
    load_tokenizer,
    read_config,
)
from modelpool_worker.models.rearranged import rearrange


class PretrainedEncoder:
    """Token ids → pooled vectors; ``backend`` is its tokenizer without limit and padding."""

    def __init__(self, files: ModelFiles, dtype: torch.dtype, device: torch.device) -> None:
        config = _config(files)
        skeleton = build_skeleton(AutoModel, config, files)
        if "input_ids" not in inspect.signature(skeleton.forward).parameters:
            raise NeverLoadsError(f"{files.source} does not take text; expected a text encoder for text-embedding")
        check_weights(skeleton, files)
        self._model = load_model(AutoModel, config, files, dtype, device)
        self._device = device
        tokenizer = load_tokenizer(files.folder, files.source)
        self._left = tokenizer.padding_side == "left"
        self._pad = int(tokenizer.pad_token_id or 0)
        self.truncates = tokenizer.truncation_side
        self.backend = tokenizer.backend_tokenizer
        # tokenizer.json may bring a limit and a fixed padding of its own, which are not the model's
        self.backend.no_padding()
        self.backend.no_truncation()
        self.vocabulary = int(getattr(config, "vocab_size", 0)) or len(tokenizer)
        self.tokenizer_limit = int(tokenizer.model_max_length)
        self.positions = getattr(config, "max_position_embeddings", None)

    def convert(self, dtype: torch.dtype) -> None:
        """Change the weights' format in place, tensor by tensor."""
        convert(self._model, dtype)

    def rearrange(self, texts: Sequence[Sequence[int]]) -> bool:
        """Rearrange the weights; return False where ``texts`` show that the model has to be loaded again."""
        return rearrange(self._model, lambda _model: self.embed(texts, ("mean",)))

    def embed(self, texts: Sequence[Sequence[int]], modes: Sequence[str]) -> Tensor:
        """Return one float32 vector per text [texts, size × modes], in order; each text has one token at least."""
        if self._device.type != "cpu":
            return self._embed_padded(texts, modes)
        # padding costs a CPU as much as text, so only texts of similar length are padded together
        parts = divide([len(ids) for ids in texts], 1)
        vectors = [self._embed_padded([texts[index] for index in part], modes) for part in parts]
        return in_order(vectors, parts)

    def _embed_padded(self, texts: Sequence[Sequence[int]], modes: Sequence[str]) -> Tensor:
        longest = max(len(ids) for ids in texts)
        input_ids = torch.full((len(texts), longest), self._pad, dtype=torch.int64)
        mask = torch.zeros((len(texts), longest), dtype=torch.int64)
        for row, ids in enumerate(texts):
            columns = slice(longest - len(ids), longest) if self._left else slice(0, len(ids))
            input_ids[row, columns] = torch.tensor(ids, dtype=torch.int64)
            mask[row, columns] = 1
        input_ids, mask = input_ids.to(self._device), mask.to(self._device)
        with torch.inference_mode():
            hidden = self._model(input_ids=input_ids, attention_mask=mask, return_dict=True).last_hidden_state
            return pool(hidden, mask, modes)

    def close(self) -> None:
        """Nothing is held beside memory."""


def _config(files: ModelFiles) -> Any:
    config = read_config(files)
    has_vision = getattr(config, "vision_config", None) is not None
    if type(config) not in MODEL_MAPPING or has_vision or getattr(config, "is_encoder_decoder", False):
        raise NeverLoadsError(
            f"{files.source} is a {config.model_type} model, which does not fit capability text-embedding; expected a "
            "text encoder such as bert, roberta, xlm-roberta, mpnet, modernbert or qwen3"
        )
    return config
