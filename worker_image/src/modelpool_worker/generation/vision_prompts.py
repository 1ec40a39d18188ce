"""What a chat with images is to a vision-language model: token ids and processed pixels. Imports torch.

The model's processor is given rendered text and decoded pixels only: from a URL, a path or a base64 string it would
read the network or the disk by itself.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import torch

from modelpool_worker.capabilities.base import Prepared
from modelpool_worker.errors import InvalidRequestError, NeverLoadsError
from modelpool_worker.generation.chat_template import ChatTemplate
from modelpool_worker.generation.marks import Marks
from modelpool_worker.generation.prompt import GenerationPrompt
from modelpool_worker.generation.prompt_checks import as_row, count_answer, too_long
from modelpool_worker.generation.request import Message, TextRequest
from modelpool_worker.generation.vocabulary import Vocabulary
from modelpool_worker.imaging.decode import decode_image
from modelpool_worker.imaging.headers import read_header
from modelpool_worker.imaging.pixel_budget import PixelBudget

#: Pixels of one image as it arrives, and of all images of a request; the processor then scales them to what the
#: model takes. Decoded and on the way to that size, a pixel takes about 10 bytes.
MAX_PIXELS: Final = 4096 * 4096
MAX_PIXELS_TOGETHER: Final = 2 * MAX_PIXELS
#: Stands for an image between texts: no special token holds it.
_BETWEEN: Final = "\0"


class VisionInputs(NamedTuple):
    """``ids`` are the prompt's tokens, ``extra`` the model's further inputs by name, each of a batch of one."""

    ids: tuple[int, ...]
    extra: Mapping[str, Any]


class VisionReader:
    """Reads messages as the model's processor does. One thread at a time."""

    def __init__(self, processor: Any, vocabulary: Vocabulary, dtype: torch.dtype, source: str) -> None:
        """``dtype`` is what pixels become; ``source`` is how the user calls the model."""
        self._processor = processor
        self._marks = find_marks(processor, vocabulary)
        self._longest_token = vocabulary.longest()
        self._dtype = dtype
        tokens = {name: token for name, token in processor.tokenizer.special_tokens_map.items() if token}
        self._template = ChatTemplate(
            find_template(processor, source), {name: str(token) for name, token in tokens.items()}
        )

    def read(self, messages: Sequence[Message], context: int) -> VisionInputs:
        """Return the model's inputs; raise ``InvalidRequestError`` for what is wrong with texts or images.

        ``context`` is how many tokens the model takes: what must have more is refused before the work is done.
        """
        if not messages:
            raise InvalidRequestError("this model takes messages only; expected /v1/chat/completions", param="messages")
        self._check_texts(messages)
        text = self._template.render([_shown(message) for message in messages])
        least = len(text) // self._longest_token
        if least > context:
            raise too_long(f"at least {least}", context, "messages")
        encoded = [part for message in messages for part in message.parts if isinstance(part, bytes)]
        _check_pixels(encoded)
        images = [decode_image(data, max_pixels=MAX_PIXELS, param="messages") for data in encoded]
        # as the library's own chat does it: a template that writes the first token itself gets no second one
        first = self._processor.tokenizer.bos_token
        try:
            made = self._processor(
                text=[text],
                images=[images] if images else None,
                return_tensors="pt",
                add_special_tokens=not (first and text.startswith(first)),
            )
        except Exception as error:  # processors raise errors of many kinds for what they cannot place or scale
            raise InvalidRequestError(
                "this model cannot take these messages with these images; expected images in user messages only, "
                "neither tiny nor very long or narrow",
                param="messages",
            ) from error
        extra = {name: self._cast(value) for name, value in made.items() if name not in ("input_ids", "attention_mask")}
        return VisionInputs(tuple(made["input_ids"][0].tolist()), extra)

    def close(self) -> None:
        """End what renders the chat template."""
        self._template.close()

    def _check_texts(self, messages: Sequence[Message]) -> None:
        # a mark may be cut in two parts, which the template writes one after the other
        texts = ["".join(part if isinstance(part, str) else _BETWEEN for part in message.parts) for message in messages]
        if self._marks.are_in(texts):
            raise InvalidRequestError(
                "messages hold one of this model's special tokens, which mark images and where messages begin and "
                'end; expected plain text, and images as parts: {"type": "image_url", "image_url": {"url": …}}',
                param="messages",
            )

    def _cast(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            return value.to(self._dtype)
        return value


class VisionPrompts:
    """Makes prompts of requests. One thread at a time. ``context`` is how long prompt and answer may be together."""

    def __init__(self, reader: VisionReader, context: int, budget: PixelBudget) -> None:
        self._reader = reader
        self._context = context
        self._budget = budget

    def prepare(self, requests: Sequence[TextRequest]) -> list[Prepared]:
        """Make prompts ready, one each, in order; those of the same messages share ids and pixels.

        Raises ``InvalidRequestError``, or ``QueueFullError`` where the images that wait take too much memory.
        """
        known: dict[int, VisionInputs] = {}
        prepared: list[Prepared] = []
        for request in requests:
            place = id(request.messages)
            made = known.get(place) or self._reader.read(request.messages, self._context)
            count = count_answer(len(made.ids), request.sampling, self._context, "messages")
            if place not in known:
                known[place] = made
                self._budget.hold(value for value in made.extra.values() if isinstance(value, torch.Tensor))
            prepared.append(as_row(GenerationPrompt(made.ids, request.sampling, count, request.choice, made.extra)))
        return prepared

    def close(self) -> None:
        """End what renders the chat template."""
        self._reader.close()


def find_marks(processor: Any, vocabulary: Vocabulary) -> Marks:
    """Return what finds special tokens and the processor's own placeholders in a text."""
    own = [
        value
        for name, value in vars(processor).items()
        if name.endswith(("_token", "_tag")) and isinstance(value, str) and value
    ]
    return Marks([*own, *vocabulary.special_words()])


def find_template(processor: Any, source: str) -> str:
    """Return the model's chat template; raise ``NeverLoadsError`` for a model without one."""
    for found in (processor.chat_template, processor.tokenizer.chat_template):
        template = found.get("default") if isinstance(found, Mapping) else found
        if isinstance(template, str) and template:
            return template
    raise NeverLoadsError(
        f"{source} has no chat template; expected a model for chats, with chat_template.jinja or chat_template.json"
    )


def _check_pixels(encoded: Sequence[bytes]) -> None:
    headers = [read_header(data, param="messages") for data in encoded]
    pixels = sum(header.width * header.height for header in headers)
    if pixels > MAX_PIXELS_TOGETHER and len(encoded) > 1:
        raise InvalidRequestError(
            f"the images have {pixels} pixels together; expected at most {MAX_PIXELS_TOGETHER} in one request",
            param="messages",
        )


def _shown(message: Message) -> dict[str, Any]:
    parts = [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in message.parts]
    return {"role": message.role, "content": parts}
