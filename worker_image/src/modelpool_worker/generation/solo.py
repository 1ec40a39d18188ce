"""Generation for models whose memory of a text is no plain attention cache: one text at a time, a token per turn.

A sliding window, a recurrence or positions in several dimensions are the model's own affair. It prepares its inputs
and its state by the functions that the library's ``generate`` calls; choosing tokens and making text of them is ours,
the same as for rows that step together.
"""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.generation.utils import MULTIMODAL_INPUTS_TO_DROP_OUTSIDE_PREFILL

from modelpool_worker.capabilities.base import Piece
from modelpool_worker.errors import InferenceFailedError
from modelpool_worker.generation.answer import Answer
from modelpool_worker.generation.failures import text_failed
from modelpool_worker.generation.prompt import GenerationPrompt
from modelpool_worker.generation.request import Sampling
from modelpool_worker.generation.sampler import choose
from modelpool_worker.generation.vocabulary import Vocabulary
from modelpool_worker.models.memory import is_out_of_memory


def try_out(model: Any, ids: Sequence[int] = range(3), extra: Mapping[str, Tensor] = MappingProxyType({})) -> Tensor:
    """Return what a model says after a prompt of these tokens and further inputs: logits, 1 × vocabulary."""
    return _Text(model, GenerationPrompt(tuple(ids), Sampling(), max_new_tokens=1, extra=extra)).next_logits()


class Solo:
    """Texts in the making: the first that joined runs, the others wait until it is over. Used by one thread only."""

    def __init__(self, model: Any, vocabulary: Vocabulary, ends: Collection[int]) -> None:
        """``ends`` are the ids of the tokens that end a text.

        The model's own generation_config is taken away: how tokens are chosen is the request's to say.
        """
        model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
        self._model = model
        self._vocabulary = vocabulary
        self._ends = ends
        self._waiting: dict[int, GenerationPrompt] = {}
        self._run: _Run | None = None

    @torch.inference_mode()
    def turn(self, joins: Mapping[int, GenerationPrompt], leaves: Collection[int]) -> list[Piece]:
        """Drop ``leaves``, take in ``joins``, and give the running text its next token."""
        for key in leaves:
            self._waiting.pop(key, None)
            if self._run is not None and self._run.key == key:
                self._run = None
        self._waiting |= joins
        if self._run is None and not self._waiting:
            return []
        key = self._run.key if self._run is not None else next(iter(self._waiting))
        try:
            piece = self._step(key)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            piece = Piece(key, None, last=True, error=text_failed(error))
        if piece.last:
            self._run = None
        return [piece]

    def _step(self, key: int) -> Piece:
        if self._run is None:
            prompt = self._waiting.pop(key)
            self._run = _Run(key, Answer(prompt, self._vocabulary, self._ends), _Text(self._model, prompt))
        return self._run.step()

    def reset(self) -> None:
        """Forget every text."""
        self._waiting.clear()
        self._run = None


class _Run:
    """The text that runs and its answer."""

    def __init__(self, key: int, answer: Answer, text: "_Text") -> None:
        self.key = key
        self._answer = answer
        self._text = text

    def step(self) -> Piece:
        chosen = choose(self._text.next_logits(), [self._answer.draw])[0]
        if chosen is None:
            error = InferenceFailedError("the model's numbers are not finite for this request; try dtype float32")
            return Piece(self.key, None, last=True, error=error)
        delta = self._answer.take(chosen)
        self._text.append(chosen.token)
        return Piece(self.key, delta, last=delta.finish is not None)


class _Text:
    """The tokens of one text and what the model remembers of them."""

    def __init__(self, model: Any, prompt: GenerationPrompt) -> None:
        self._model = model
        ids = torch.tensor([prompt.ids], device=model.device)
        # without a mask the library takes tokens equal to the padding token for padding
        inputs = {"attention_mask": torch.ones_like(ids)} | {
            name: value.to(model.device) if isinstance(value, Tensor) else value for name, value in prompt.extra.items()
        }
        plain = GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=prompt.max_new_tokens, do_sample=False, num_beams=1, use_cache=True
        )
        self._ids, self._state = model.generate(ids, **inputs, generation_config=plain, custom_generate=_hand_over)
        self._first = True

    def next_logits(self) -> Tensor:
        """Return the next token's logits, 1 × vocabulary; to be called once per token."""
        inputs = self._model.prepare_inputs_for_generation(
            self._ids,
            next_sequence_length=None if self._first else 1,
            is_first_iteration=self._first,
            **self._state,
        )
        outputs = self._model(**inputs, return_dict=True)
        if self._first:
            self._first = False
            # read by now, and other images wait for the room that these take
            for name in MULTIMODAL_INPUTS_TO_DROP_OUTSIDE_PREFILL:
                self._state.pop(name, None)
        self._state = self._model._update_model_kwargs_for_generation(outputs, self._state)
        logits: Tensor = outputs.logits[:, -1]
        return logits

    def append(self, token: int) -> None:
        """Add the chosen token."""
        self._ids = torch.cat([self._ids, self._ids.new_tensor([[token]])], dim=-1)


def _hand_over(_model: Any, input_ids: Tensor, **prepared: Any) -> tuple[Tensor, dict[str, Any]]:
    """Stand in for the library's loop: return what it is given, the ids and the model's inputs and state."""
    for tool in ("logits_processor", "stopping_criteria", "generation_config"):
        prepared.pop(tool)
    return input_ids, prepared
