"""Amounts of memory, read into MiB."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpool_operator.api.quantity import MEMORY_PATTERN, parse_mib, parse_mib_floor


@pytest.mark.parametrize(
    ("text", "up", "down"),
    [
        ("8Gi", 8192, 8192),
        ("8192Mi", 8192, 8192),
        ("0.5Gi", 512, 512),
        ("1.5Ti", 1572864, 1572864),
        ("1Pi", 1 << 30, 1 << 30),
        ("1000M", 954, 953),
        ("8G", 7630, 7629),
        ("1T", 953675, 953674),
        ("1P", 953674317, 953674316),
        ("500k", 1, 0),
        ("1025Ki", 2, 1),
        ("1048576", 1, 1),
        ("1048577", 2, 1),
        ("0.1Mi", 1, 0),
        ("0", 0, 0),
        ("0.3Gi", 308, 307),
    ],
)
def test_a_need_is_rounded_up_and_a_budget_down(text, up, down):
    assert (parse_mib(text), parse_mib_floor(text)) == (up, down)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Gi",
        "8gi",
        "8 Gi",
        " 8Gi",
        "8Gi\n",
        "-8Gi",
        "+8Gi",
        "8e3",
        "500m",
        "8Ei",
        ".5Gi",
        "5.Gi",
        "8GiB",
        "٨Gi",
        "1" * 21,
    ],
)
@pytest.mark.parametrize("parse", [parse_mib, parse_mib_floor])
def test_anything_else_is_refused_with_an_example_and_without_repeating_it(parse, text):
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the whole sentence is compared
        parse(text)
    assert str(raised.value) == (
        "expected an amount of memory: a number with a suffix Ki, Mi, Gi, Ti, Pi, k, M, G, T or P, "
        "at most 20 characters, for example 8Gi"
    )


@given(st.text(alphabet="0123456789.kMGTPi -+eE٨\n", max_size=20))
def test_the_api_servers_pattern_accepts_exactly_what_is_read(text):
    # the API server's engine has no end of line inside $, which is Python's \Z
    pattern = MEMORY_PATTERN.removesuffix("$") + r"\Z"
    try:
        parse_mib(text)
    except ValueError:
        assert not re.match(pattern, text)
    else:
        assert re.match(pattern, text)


@given(st.integers(0, 10**12), st.sampled_from(["", "k", "M", "G", "Ki", "Mi", "Gi"]))
def test_rounding_loses_less_than_a_mib(number, suffix):
    up, down = parse_mib(f"{number}{suffix}"), parse_mib_floor(f"{number}{suffix}")
    assert 0 <= up - down <= 1
