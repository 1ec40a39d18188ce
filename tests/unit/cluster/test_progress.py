"""Long steps say what they do."""

import io
import re
import threading

import pytest

from cluster.progress import elapsed_text, step


class Terminal(io.StringIO):
    """A stream that claims to be a terminal, and tells when it was written to."""

    def __init__(self):
        super().__init__()
        self.written = threading.Event()

    def isatty(self):
        return True

    def write(self, text):
        self.written.set()
        return super().write(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (12.34, "12.3 s"), (60, "1 min 00 s"), (245.9, "4 min 05 s")]
)
def test_elapsed_time_reads_like_a_clock(seconds, text):
    assert elapsed_text(seconds) == text


def test_a_quick_step_is_one_line_where_there_is_no_terminal():
    out = io.StringIO()
    with step("Building", stream=out):
        pass
    assert re.fullmatch(r"✓ Building \d+\.\d s\n", out.getvalue())


def test_a_failing_step_ends_with_a_cross_and_its_error():
    out = io.StringIO()
    with pytest.raises(ValueError, match="broken"), step("Building", stream=out):
        raise ValueError("broken")
    assert out.getvalue().startswith("✗ Building ")


def test_a_terminal_shows_one_line_that_is_rewritten():
    out = Terminal()
    with step("Building", stream=out, every=0.001):
        for _ in range(3):
            out.written.clear()
            assert out.written.wait(10)
    assert out.getvalue().count("\n") == 1
    assert out.getvalue().count("\r\033[K… Building") >= 3


def test_a_step_inside_a_step_is_indented():
    out = io.StringIO()
    with step("Outer", stream=out), step("Inner", stream=out):
        pass
    assert [line.split(" 0.")[0] for line in out.getvalue().splitlines()] == ["  ✓ Inner", "✓ Outer"]
