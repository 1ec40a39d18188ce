"""Whole answers are encoded in parts: nothing else runs on the event loop while one of them is."""

import json

import pytest

from modelpool_worker.generation.request import TextDelta, TokenLogprob
from modelpool_worker.openai.chat import ChatAnswer
from modelpool_worker.openai.completions import CompletionAnswer
from modelpool_worker.openai.generated import GeneratedText, Identity
from modelpool_worker.openai.sampling import Form

IDENTITY = Identity("a-1", 1_700_000_000, "m")
#: A millisecond of encoding or so.
PART = 131_072
TOKENS = ["tok", "\n", "é", '"', "🚀", "\\", " " * 128, "\x00"]


def chat(*, logprobs):
    return ChatAnswer(IDENTITY, Form(), logprobs=logprobs)


def completion(*, logprobs):
    return CompletionAnswer(IDENTITY, Form(), size=1, logprobs=logprobs)


def said(choice):
    """The text of a choice, the tokens that are described, and how many likeliest ones are in the first of them."""
    if "message" in choice:
        content = (choice["logprobs"] or {}).get("content", [])
        tops = [len(each["top_logprobs"]) for each in content]
        return choice["message"]["content"], [each["token"] for each in content], tops[:1]
    logprobs = choice["logprobs"] or {"tokens": [], "top_logprobs": [], "text_offset": [], "token_logprobs": []}
    assert len({len(column) for column in logprobs.values()}) == 1
    return choice["text"], logprobs["tokens"], [len(each) - 1 for each in logprobs["top_logprobs"][:1]]


BOTH = pytest.mark.parametrize("answer", [chat, completion], ids=["chat", "completions"])


@BOTH
@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 1023, 1024, 1025, 100_000])
def test_a_text_of_any_length_is_what_was_written(answer, count):
    text, tokens = GeneratedText(), [TOKENS[number % len(TOKENS)] for number in range(count)]
    for token in tokens:
        text.add(TextDelta(token, 1))
    parts = list(answer(logprobs=False).choice(0, text))
    assert said(json.loads(b"".join(parts))) == ("".join(tokens), [], [])
    assert text.text == "".join(tokens)
    assert max(map(len, parts)) < PART
    assert len(text.texts) < 1024 + count / 1024, "no string for each token"


@BOTH
@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 6241])
def test_logprobs_of_any_number_are_all_there(answer, count):
    top = tuple(TokenLogprob(f"t{number}", -float(number), b"t") for number in range(20))
    text, tokens = GeneratedText(), [TOKENS[number % len(TOKENS)] for number in range(count)]
    for token in tokens:
        text.add(TextDelta(token, 1, (TokenLogprob(token, -0.5, token.encode(), top),)))
    parts = list(answer(logprobs=True).choice(0, text))
    assert said(json.loads(b"".join(parts))) == ("".join(tokens), tokens, [20][:count])
    assert max(map(len, parts)) < PART


@BOTH
def test_one_long_string_is_cut_as_well(answer):
    """A stop string that never comes may hold back any length of text."""
    text = GeneratedText()
    text.add(TextDelta("\x00🚀" * 500_000, 1))
    parts = list(answer(logprobs=False).choice(0, text))
    assert said(json.loads(b"".join(parts)))[0] == text.text
    assert max(map(len, parts)) < PART
