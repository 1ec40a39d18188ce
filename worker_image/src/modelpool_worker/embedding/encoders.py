"""From a checked model folder to an encoder: by our own forward where it fits, by transformers otherwise."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch
from tokenizers import Tokenizer, normalizers
from torch import Tensor

from modelpool_worker.capabilities.base import DType
from modelpool_worker.embedding.bert import BertEncoder
from modelpool_worker.embedding.bert_sizes import read_sizes
from modelpool_worker.embedding.rounding import agree, choose_compared
from modelpool_worker.embedding.sentence_folder import Recipe
from modelpool_worker.embedding.word_piece import load_word_piece
from modelpool_worker.models.model_files import WEIGHTS, ModelFiles, read_json

_MAX_TOKENS: Final = 32_768
#: On a CPU larger batches are no faster, and meanwhile no answers are sent and no texts arrive.
_ITEMS_PER_THREAD: Final = 16
#: Texts of which both formats' vectors are compared.
_SAMPLES: Final = (
    "warm up",
    "A somewhat longer text, to see that numbers such as 3.14 and names such as Århus keep their meaning.",
    "Wie spät ist es? 東京は今何時ですか。 🚀",
)


class Pooled(Protocol):
    """What calculates vectors."""

    def embed(self, texts: Sequence[Sequence[int]], modes: Sequence[str]) -> Tensor:
        """Return one float32 vector per list of token ids, in order; each has one token at least."""
        ...

    def close(self) -> None:
        """Let go of what it holds beside memory."""
        ...


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """A loaded encoder. The tokenizer cuts texts at ``max_tokens`` and pads nothing.

    ``max_items`` is how many texts a batch should hold at most, None where more are no slower; ``lanes`` how many
    threads should call ``embed`` at once.
    """

    model: Pooled
    tokenizer: Tokenizer
    max_tokens: int
    vocabulary: int
    dtype: torch.dtype
    max_items: int | None
    lanes: int = 1


def load_encoder(files: ModelFiles, recipe: Recipe, asked: DType, device: torch.device, threads: int) -> TextEncoder:
    """Load a checked folder; raise ``NeverLoadsError`` where it holds no text encoder.

    Where ``auto`` could be bfloat16, both formats embed a few texts, and bfloat16 is taken if the vectors agree.
    """
    return _load_plain(files, recipe, asked, device, threads) or _load_any(files, recipe, asked, device, threads)


def _load_plain(
    files: ModelFiles, recipe: Recipe, asked: DType, device: torch.device, threads: int
) -> TextEncoder | None:
    sizes = read_sizes(files) if device.type == "cpu" else None
    tokenizer = load_word_piece(files.folder, files.source) if sizes is not None else None
    if sizes is None or tokenizer is None or tokenizer.get_vocab_size() > sizes.vocabulary:
        return None
    limit = read_json(files.folder, "tokenizer_config.json", files.source).get("model_max_length")
    max_tokens = _max_tokens(recipe, limit, sizes.positions)
    _finish(tokenizer, recipe, max_tokens, "right")
    weights = files.folder / WEIGHTS
    dtype, compares = choose_compared(asked, files, device)
    samples, exact = _samples(tokenizer), None
    if compares:
        model = BertEncoder(weights, sizes, torch.float32, threads, rearrange=False)
        exact = model.embed(samples, ("mean",))
        model.close()
        del model  # before the next one: both at once would take more memory than either needs
    model = BertEncoder(weights, sizes, dtype, threads)
    if exact is not None and not agree(exact, model.embed(samples, ("mean",))):
        model.close()
        model, dtype = BertEncoder(weights, sizes, torch.float32, threads), torch.float32
    return TextEncoder(model, tokenizer, max_tokens, sizes.vocabulary, dtype, _ITEMS_PER_THREAD, lanes=threads)


def _load_any(files: ModelFiles, recipe: Recipe, asked: DType, device: torch.device, threads: int) -> TextEncoder:
    from modelpool_worker.embedding.pretrained_encoder import PretrainedEncoder  # imports transformers: seconds

    dtype, compares = choose_compared(asked, files, device)
    model = PretrainedEncoder(files, torch.float32 if compares else dtype, device)
    tokenizer = model.backend
    max_tokens = _max_tokens(recipe, model.tokenizer_limit, model.positions)
    _finish(tokenizer, recipe, max_tokens, model.truncates)
    samples = _samples(tokenizer)
    if compares:
        exact = model.embed(samples, ("mean",))
        model.convert(dtype)
        if not agree(exact, model.embed(samples, ("mean",))):
            dtype = torch.float32
            del model  # its weights are rounded by now
            model = PretrainedEncoder(files, dtype, device)
    if not model.rearrange(samples):
        del model  # its weights are gone
        model = PretrainedEncoder(files, dtype, device)
    max_items = _ITEMS_PER_THREAD * threads if device.type == "cpu" else None
    return TextEncoder(model, tokenizer, max_tokens, model.vocabulary, dtype, max_items)


def _samples(tokenizer: Tokenizer) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(_SAMPLES)) if encoding.ids]


def _finish(tokenizer: Tokenizer, recipe: Recipe, max_tokens: int, side: str) -> None:
    """Give a tokenizer without limits of its own the limit and the lower case of the recipe."""
    tokenizer.enable_truncation(max_tokens, direction=side)
    if recipe.lower_case:
        own = tokenizer.normalizer
        steps = [normalizers.Lowercase(), *([own] if own is not None else [])]
        tokenizer.normalizer = normalizers.Sequence(steps)


def _max_tokens(recipe: Recipe, tokenizer_limit: Any, positions: Any) -> int:
    """Return where texts are cut: the recipe's length, else the tokenizer's, never beyond the model's positions."""
    said = (recipe.max_seq_length or tokenizer_limit, positions)
    limits = [limit for limit in said if isinstance(limit, int | float) and limit > 0]
    return int(min(*limits, _MAX_TOKENS)) if limits else _MAX_TOKENS
