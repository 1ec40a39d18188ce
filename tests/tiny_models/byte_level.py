"""A byte-level BPE tokenizer, made by rule instead of trained, so that it is the same each time.

It knows every byte, so every text has tokens and back; a token may be half a character, as in real ones.
"""

from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

_TEXT = (
    "the a cat dog picture image shows what colour describe this red green blue round square hello world "
    "please answer shortly and in one sentence because it is late tomorrow morning under over bridge river"
)
_SPACE = "Ġ"  # how byte-level BPE writes a space

#: ChatML; content is a text or a list of parts, and IMAGE becomes what stands for an image.
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def byte_level(more_special: Sequence[str] = (), *, image: str = "") -> PreTrainedTokenizerFast:
    """Return a tokenizer padding left, with ``<|im_end|>`` at the end of a text and a chat template.

    ``more_special`` are further special tokens, ``image`` is what the template writes for an image.
    """
    vocabulary = {token: number for number, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges: dict[tuple[str, str], None] = {}
    for word in (_SPACE + word for word in _TEXT.split()):
        for end in range(2, len(word) + 1):
            merges[word[: end - 1], word[end - 1]] = None
            vocabulary.setdefault(word[:end], len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in (*SPECIAL, *more_special)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        padding_side="left",
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=list(more_special),
        model_max_length=1024,
    )
    fast.chat_template = _CHAT_TEMPLATE.replace("IMAGE", image)
    return fast
