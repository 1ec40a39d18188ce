"""What holds for every test run."""

import os
import sys

import pytest

#: modules beside the tests that assert as tests do
pytest.register_assert_rewrite("control_plane.operator_runs.lives", "control_plane.operator_runs.site")


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """Leave at once where torch was loaded: its compiler complains about its own leaks when the interpreter ends.

    That would push pytest's closing line out of sight. Everything of ours has been closed and reported by now.
    """
    if "torch" not in sys.modules:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(_exit_status[0]))


_exit_status: list[int] = [int(pytest.ExitCode.INTERNAL_ERROR)]


def pytest_sessionfinish(exitstatus: int | pytest.ExitCode) -> None:
    """Remember how the run ended."""
    _exit_status[0] = int(exitstatus)
