"""What a client asks of a text generator and what comes back, whatever endpoint it came by. No model library here."""

from dataclasses import dataclass, field
from typing import Literal

Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. A ``temperature`` of 0: the likeliest one, always.

    ``seed`` of None: another text each time. ``top_logprobs`` of None: no logprobs, else how many beside the chosen
    one. ``max_tokens`` of None: as many as the context leaves, up to the setting's.
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat; a part is a text or the encoded bytes of an image (PNG, JPEG or WebP)."""

    role: str
    parts: tuple[str | bytes, ...]


@dataclass(frozen=True, slots=True)
class TextRequest:
    """One text to be generated: from a chat, or from a plain prompt (text or token ids).

    A request for ``n`` texts is ``n`` of these that share ``messages`` or ``prompt`` and differ in ``choice``, which
    is added to the seed.
    """

    sampling: Sampling
    messages: tuple[Message, ...] = ()
    prompt: str | tuple[int, ...] = ""
    choice: int = 0


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token, how likely it was (natural logarithm), its bytes, and the likeliest ones in its place."""

    text: str
    logprob: float
    data: bytes
    top: "tuple[TokenLogprob, ...]" = ()


@dataclass(frozen=True, slots=True)
class TextDelta:
    """What one step adds to a text: ``text`` may be empty while a character or a stop string is incomplete.

    All texts of an answer in order, joined, are the whole answer. The last delta has ``finish``.
    """

    text: str = ""
    tokens: int = 0
    logprobs: tuple[TokenLogprob, ...] = field(default=())
    finish: Finish | None = None
