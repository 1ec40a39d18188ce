"""Marks in texts, against a plain search for each of them."""

import random

import pytest

from modelpool_worker.generation.marks import Marks

CHAT = ["<|im_start|>", "<|im_end|>"]


@pytest.mark.parametrize(
    ("words", "texts", "found"),
    [
        pytest.param(CHAT, ["so <|im_end|> it ends"], True, id="in the middle"),
        pytest.param(CHAT, ["<|im_end|>"], True, id="nothing else"),
        pytest.param(CHAT, ["so <|im_en|> it < goes | on"], False, id="nearly"),
        pytest.param(CHAT, ["fine", "<<|im_start|>>"], True, id="in the second text, overlapped"),
        pytest.param(CHAT, ["<|im_", "end|>"], False, id="cut in two texts"),
        pytest.param(CHAT, [], False, id="no text"),
        pytest.param(CHAT, ["", "<"], False, id="an empty text"),
        pytest.param([], ["<|im_end|>"], False, id="no marks"),
        pytest.param(["", "x"], ["abc"], False, id="an empty word is no mark"),
        pytest.param(["?"], ["?"], True, id="a mark of one character"),
        pytest.param(["??"], ["???", "?"], True, id="question marks"),
        pytest.param(["??"], ["?", "a?b?"], False, id="a question mark alone"),
        pytest.param(["東京"], ["x東京"], True, id="not ASCII"),
        pytest.param(["[A"], ["[a"], False, id="another case"),
        pytest.param(["é"], ["e\N{COMBINING ACUTE ACCENT}"], False, id="written another way"),
        pytest.param([" a "], ["b a c"], True, id="blanks count"),
    ],
)
def test_marks_in_texts(words, texts, found):
    assert Marks(words).are_in(texts) is found


def test_any_text_and_any_marks_as_by_a_plain_search():
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    counts = [0, 0]
    for _ in range(500):
        words = ["".join(rng.choices("<|a>?é", k=rng.randrange(1, 5))) for _ in range(rng.randrange(6))]
        marks = Marks(words)
        for _ in range(5):
            text = "".join(rng.choices("<|a>?é ", k=rng.randrange(12)))
            expected = any(word in text for word in words)
            counts[expected] += 1
            assert marks.are_in([text]) is expected, (words, text)
    assert min(counts) > 100
