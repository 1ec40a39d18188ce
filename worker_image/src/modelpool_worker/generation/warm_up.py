"""A first short text, which also shows whether the model works."""

from collections.abc import Collection, Iterable, Mapping
from typing import Final, Protocol

from modelpool_worker.capabilities.base import Piece
from modelpool_worker.errors import NeverLoadsError
from modelpool_worker.generation.prompt import GenerationPrompt
from modelpool_worker.generation.request import Sampling

_TOKENS: Final = 4


class Stepping(Protocol):
    """What keeps rows."""

    def turn(self, joins: Mapping[int, GenerationPrompt], leaves: Collection[int]) -> list[Piece]:
        """Take a turn."""
        ...


def warm_up(rows: Stepping, prompts: Iterable[GenerationPrompt] = ()) -> None:
    """Write two short texts of different lengths, and answers to ``prompts``.

    Raises ``NeverLoadsError`` where the numbers are not finite.

    No row may be there; none is left.
    """
    sampling = Sampling(temperature=0, top_logprobs=1)
    texts = [GenerationPrompt(tuple(range(size)), sampling, _TOKENS) for size in (3, 8)]
    joins = {-number: prompt for number, prompt in enumerate([*texts, *prompts], 1)}
    waited = set(joins)
    while waited:
        for piece in rows.turn(joins, ()):
            if piece.error is not None:
                raise NeverLoadsError("what the model calculates are not finite numbers; try dtype float32")
            if piece.last:
                waited.discard(piece.key)
        joins = {}
