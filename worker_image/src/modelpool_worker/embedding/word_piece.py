"""The tokenizer of a plain BERT encoder by the tokenizers library alone, equal to what transformers makes of it.

transformers builds a BERT tokenizer from the vocabulary and tokenizer_config.json, and ignores much of tokenizer.json.
So the file is taken as it is only where both say the same; anything else is left to transformers.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer

from modelpool_worker.models.model_files import read_json

_SPECIAL: Final = {
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "mask_token": "[MASK]",
}
_CLASSES: Final = ("BertTokenizer", "BertTokenizerFast")
_MODEL: Final = {
    "type": "WordPiece",
    "unk_token": "[UNK]",
    "continuing_subword_prefix": "##",
    "max_input_chars_per_word": 100,
}
#: A special token stands for itself, wherever it is.
_ADDED: Final = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
_SWITCHES: Final = ("single_word", "lstrip", "rstrip", "normalized")
_NOTHING: Final[tuple[Any, ...]] = (None, [], {})


def load_word_piece(folder: Path, source: str) -> Tokenizer | None:
    """Return the folder's tokenizer, without limit and padding; None where it is not a plain BERT one."""
    if not all((folder / name).exists() for name in ("tokenizer.json", "tokenizer_config.json")):
        return None
    if (folder / "added_tokens.json").exists():
        return None
    names = ("tokenizer.json", "tokenizer_config.json")
    file, config = (read_json(folder, name, source) for name in names)
    listed = folder / "special_tokens_map.json"
    special = read_json(folder, listed.name, source) if listed.exists() else {}
    if not is_plain(file, config, special):
        return None
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def is_plain(file: Any, config: Any, special: Any) -> bool:
    """Whether tokenizer.json, tokenizer_config.json and special_tokens_map.json say the same plain BERT tokenizer."""
    if not all(isinstance(each, Mapping) for each in (file, config, special)):
        return False
    model = file.get("model")
    vocabulary = model.get("vocab") if isinstance(model, Mapping) else None
    if not isinstance(vocabulary, Mapping) or any(model.get(key) != value for key, value in _MODEL.items()):
        return False
    ids = {token: vocabulary.get(token) for token in _SPECIAL.values()}
    if not all(type(number) is int for number in ids.values()):
        return False
    normalizer = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": config.get("tokenize_chinese_chars", True),
        "strip_accents": config.get("strip_accents"),
        "lowercase": config.get("do_lower_case", True),
    }
    return (
        config.get("tokenizer_class") in _CLASSES
        and config.get("truncation_side", "right") == "right"
        and file.get("normalizer") == normalizer
        and file.get("pre_tokenizer") == {"type": "BertPreTokenizer"}
        and _starts_and_ends(file.get("post_processor"), ids)
        and _adds_the_special_ones(file.get("added_tokens"), ids)
        and all(_names_the_special_ones(each) for each in (config, special))
        and _adds_no_more(config.get("added_tokens_decoder"), ids)
    )


def _starts_and_ends(processor: Any, ids: Mapping[str, Any]) -> bool:
    """Whether a text becomes ``[CLS] text [SEP]``."""
    if not isinstance(processor, Mapping):
        return False
    if processor.get("type") == "BertProcessing":
        ends = [processor.get("cls"), processor.get("sep")]
        return ends == [["[CLS]", ids["[CLS]"]], ["[SEP]", ids["[SEP]"]]]
    start, end = ({"SpecialToken": {"id": token, "type_id": 0}} for token in ("[CLS]", "[SEP]"))
    tokens = {token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in ("[CLS]", "[SEP]")}
    single = [start, {"Sequence": {"id": "A", "type_id": 0}}, end]
    return (
        processor.get("type") == "TemplateProcessing"
        and processor.get("single") == single
        and processor.get("special_tokens") == tokens
    )


def _adds_the_special_ones(added: Any, ids: Mapping[str, Any]) -> bool:
    wanted = [{"content": token, "id": number, **_ADDED} for token, number in ids.items()]
    if not isinstance(added, list) or len(added) != len(wanted):
        return False
    return all(each in added for each in wanted)


def _names_the_special_ones(config: Mapping[str, Any]) -> bool:
    """Whether the special tokens are the usual ones where they are named, and there are no others."""
    for key, token in _SPECIAL.items():
        said = config.get(key, token)
        if isinstance(said, Mapping):
            said = said.get("content") if all(said.get(each, False) is False for each in _SWITCHES) else None
        if said != token:
            return False
    others = ("additional_special_tokens", "extra_special_tokens", "bos_token", "eos_token")
    return all(config.get(key) in _NOTHING for key in others)


def _adds_no_more(decoder: Any, ids: Mapping[str, Any]) -> bool:
    if decoder is None:
        return True
    wanted = {str(number): {"content": token, **_ADDED} for token, number in ids.items()}
    return isinstance(decoder, Mapping) and all(wanted.get(key) == value for key, value in decoder.items())
