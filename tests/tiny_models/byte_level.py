"""A byte-level BPE tokenizer, trained in a moment: it knows every byte, so every text has tokens and back."""

from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

_WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "picture",
    "image",
    "shows",
    "what",
    "colour",
    "describe",
    "this",
    "red",
    "green",
    "blue",
    "round",
    "square",
    "hello",
    "world",
    "please",
    "answer",
    "shortly",
    "and",
    "in",
    "one",
    "sentence",
    "because",
    "it",
    "is",
    "late",
    "tomorrow",
    "morning",
    "under",
    "over",
    "bridge",
    "river",
]

#: ChatML, with content as a text or as parts; an image part becomes the token given as `image`.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def train(more_special: Sequence[str] = (), *, vocabulary: int = 512, image: str = "") -> PreTrainedTokenizerFast:
    """Return a tokenizer padding left, end of text `<|im_end|>`, with the chat template above.

    ``more_special`` are further special tokens, ``image`` what stands for an image in the template.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        [" ".join(_WORDS[i:] + _WORDS[:i]) for i in range(len(_WORDS))],
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[*SPECIAL, *more_special],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        padding_side="left",
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=list(more_special),
        model_max_length=4096,
    )
    fast.chat_template = CHAT_TEMPLATE.replace("IMAGE", image)
    return fast
