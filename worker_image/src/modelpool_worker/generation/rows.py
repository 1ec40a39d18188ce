"""Continuous batching: each newcomer is read alone, then all rows step together in one forward pass."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor
from transformers import DynamicCache

from modelpool_worker.capabilities.base import Piece
from modelpool_worker.errors import InferenceFailedError, RequestError
from modelpool_worker.generation.answer import Answer
from modelpool_worker.generation.failures import prompt_failed
from modelpool_worker.generation.prompt import GenerationPrompt
from modelpool_worker.generation.sampler import Chosen, choose
from modelpool_worker.generation.slot_cache import Layer, SlotCache
from modelpool_worker.generation.vocabulary import Vocabulary
from modelpool_worker.models.memory import is_out_of_memory

#: Prompt tokens read in one turn, beside which the running rows step: their pause is as long as that takes.
_READ_CPU: Final = 256
_READ_GPU: Final = 2048


@dataclass(slots=True, eq=False)
class _Row:
    key: int
    answer: Answer
    final: int
    token: int = 0


@dataclass(slots=True, eq=False)
class _Reading:
    """A prompt on its way into the cache, and the rows that wait for it."""

    prompt: GenerationPrompt
    cache: Any
    done: int = 0
    rows: list[_Row] = field(default_factory=list)


class Rows:
    """The rows of a model with a plain attention cache. Used from one thread.

    ``model`` is a transformers model for text generation; ``ends`` are the ids of the tokens that end a text.
    """

    def __init__(
        self, model: Any, vocabulary: Vocabulary, ends: Collection[int], *, read_tokens: int | None = None
    ) -> None:
        self._model = model
        self._vocabulary = vocabulary
        self._ends = frozenset(ends)
        self._device = model.device
        self._read_tokens = read_tokens or (_READ_GPU if self._device.type == "cuda" else _READ_CPU)
        self._reading: list[_Reading] = []
        self._rows: list[_Row] = []
        self._cache = SlotCache(self._device)

    def turn(self, joins: Mapping[int, GenerationPrompt], leaves: Collection[int]) -> list[Piece]:
        """Drop ``leaves``, take in ``joins``, step every row, then read on in the newcomers' prompts.

        A newcomer's first piece comes in the turn in which its prompt has been read to its end.
        """
        with torch.inference_mode():
            for key in leaves:
                self._leave(key)
            for key, prompt in joins.items():
                self._join(key, prompt)
            pieces = self._step() if self._rows else []
            return pieces + self._read()

    def reset(self) -> None:
        """Drop every row."""
        self._reading.clear()
        self._rows.clear()
        self._cache.clear()

    def _join(self, key: int, prompt: GenerationPrompt) -> None:
        answer = Answer(prompt, self._vocabulary, self._ends)
        row = _Row(key, answer, final=len(prompt.ids) + prompt.max_new_tokens)
        for reading in self._reading:
            if reading.prompt.ids is prompt.ids and reading.prompt.extra is prompt.extra:
                reading.rows.append(row)
                return
        self._reading.append(_Reading(prompt, DynamicCache(config=self._model.config), rows=[row]))

    def _leave(self, key: int) -> None:
        for reading in self._reading:
            reading.rows = [row for row in reading.rows if row.key != key]
        self._reading = [reading for reading in self._reading if reading.rows]
        for index, row in enumerate(self._rows):
            if row.key == key:
                self._drop(index)
                return

    def _drop(self, index: int) -> None:
        self._cache.drop(index)
        # as the cache does: the last row takes the place
        self._rows[index] = self._rows[-1]
        self._rows.pop()

    def _step(self) -> list[Piece]:
        tokens = torch.tensor([[row.token] for row in self._rows], device=self._device)
        positions, mask = self._cache.begin_step()
        logits = self._forward(tokens, positions, self._cache.view, attention_mask=mask)
        chosen = choose(logits, [row.answer.draw for row in self._rows])
        pieces = [_advance(row, each) for row, each in zip(self._rows, chosen, strict=True)]
        for index in range(len(pieces) - 1, -1, -1):
            if pieces[index].last:
                self._drop(index)
        return pieces

    def _read(self) -> list[Piece]:
        """Read up to a turn's number of prompt tokens; those that were read to the end say their first piece."""
        pieces: list[Piece] = []
        left = self._read_tokens
        while self._reading and left > 0:
            reading = self._reading[0]
            size = len(reading.prompt.ids) - reading.done
            if not reading.prompt.extra:
                size = min(size, left)
            left -= size
            try:
                chosen = self._read_on(reading, size)
            except Exception as error:  # what is wrong with one prompt is not the others' trouble
                told = prompt_failed(error)
                pieces += [_failed(row, told) for row in reading.rows]
                self._reading.remove(reading)
                continue
            if chosen is not None:
                self._reading.remove(reading)
                pieces += self._start(reading, chosen)
        return pieces

    def _read_on(self, reading: _Reading, size: int) -> list[Chosen | None] | None:
        """Read so many tokens of a prompt; after the last one return the first token of each row's text."""
        start, end = reading.done, reading.done + size
        tokens = torch.tensor([reading.prompt.ids[start:end]], device=self._device)
        positions = torch.arange(start, end, device=self._device)[None]
        extra = {name: value.to(self._device) for name, value in reading.prompt.extra.items()}
        logits = self._forward(tokens, positions, reading.cache, **extra)
        reading.done = end
        if end < len(reading.prompt.ids):
            return None
        return choose(logits.expand(len(reading.rows), -1), [row.answer.draw for row in reading.rows])

    def _start(self, reading: _Reading, chosen: Sequence[Chosen | None]) -> list[Piece]:
        layers = [Layer(layer.keys, layer.values) for layer in reading.cache.layers]
        pieces: list[Piece] = []
        for row, each in zip(reading.rows, chosen, strict=True):
            piece = _advance(row, each)
            if not piece.last:
                try:
                    self._cache.add(layers, row.final)
                    self._rows.append(row)
                except Exception as error:
                    if not is_out_of_memory(error):
                        raise
                    piece = _failed(row, prompt_failed(error))
            pieces.append(piece)
        return pieces

    def _forward(self, tokens: Tensor, positions: Tensor, cache: Any, **more: Any) -> Tensor:
        """Return the logits after the last token of each row: rows × vocabulary."""
        output = self._model(
            input_ids=tokens,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
            return_dict=True,
            **more,
        )
        logits: Tensor = output.logits[:, -1]
        return logits


def _advance(row: _Row, chosen: Chosen | None) -> Piece:
    if chosen is None:
        sentence = "the model's numbers are not finite for this request; expected another prompt, or dtype float32"
        return _failed(row, InferenceFailedError(sentence))
    row.token = chosen.token
    delta = row.answer.take(chosen)
    return Piece(row.key, delta, last=delta.finish is not None)


def _failed(row: _Row, error: RequestError) -> Piece:
    return Piece(row.key, None, last=True, error=error)
