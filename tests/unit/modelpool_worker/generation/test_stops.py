"""Stop strings in a text that comes in pieces."""

import random

import pytest

from modelpool_worker.generation.stops import StopStrings


def fed(stops, pieces):
    """Return the texts let through, without the end, and whether a stop string was found."""
    text = StopStrings(stops)
    said = [text.add(piece) for piece in pieces]
    return said if text.found else [*said, text.end()], text.found


@pytest.mark.parametrize(
    ("stops", "pieces", "said", "found"),
    [
        ((), ["ab", "c"], ["ab", "c", ""], False),
        (("cd",), ["abc", "de"], ["ab", ""], True),
        (("cd",), ["abc", "e"], ["ab", "ce", ""], False),
        (("cd",), ["abc"], ["ab", "c"], False),
        (("\n\n",), ["a\n", "b\n", "\nc"], ["a", "\nb", ""], True),
        (("aab",), ["aa", "ab"], ["", "a"], True),
        (("abc", "b"), ["abc"], ["a"], True),
        (("bc", "abc"), ["xabcd"], ["x"], True),
        (("stop",), ["do stop now"], ["do "], True),
        (("x",), ["x"], [""], True),
    ],
    ids=[
        "none",
        "cut in two",
        "not it after all",
        "the end while held back",
        "twice begun",
        "overlapping itself",
        "the one that is complete first",
        "of equal ends the longest",
        "in the middle",
        "at once",
    ],
)
def test_text_ends_before_the_stop_string(stops, pieces, said, found):
    assert fed(stops, pieces) == (said, found)


def test_nothing_comes_after_a_stop_string():
    text = StopStrings(("b",))
    assert text.add("abc") == "a"
    assert text.add("more") == ""
    assert text.end() == ""


def test_what_comes_out_does_not_depend_on_how_the_text_was_cut():
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(2000):
        text = "".join(rng.choice("abc") for _ in range(rng.randrange(30)))
        stops = ["".join(rng.choice("abc") for _ in range(rng.randrange(1, 5))) for _ in range(rng.randrange(1, 4))]
        cuts = sorted(rng.randrange(len(text) + 1) for _ in range(rng.randrange(6)))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        ends = [end for end in range(len(text) + 1) if text[:end].endswith(tuple(stops))]
        longest = max((stop for stop in stops if ends and text[: ends[0]].endswith(stop)), key=len, default="")
        expected = text[: ends[0] - len(longest)] if ends else text
        said, found = fed(stops, pieces)
        assert ("".join(said), found) == (expected, bool(ends)), (text, stops, pieces)
