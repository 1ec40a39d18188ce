"""What holds for every test run."""

import os
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
#: modules beside the tests that assert as tests do
pytest.register_assert_rewrite("control_plane.operator_runs.lives", "control_plane.operator_runs.site")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run in two processes, those that share something costly stay together in one."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group(item.path.relative_to(TESTS).parts)))


def group(parts: tuple[str, ...]) -> str:
    """What a test file runs together with: the real cluster is one, each part of the control plane has its own."""
    if parts[0] == "e2e":
        return "e2e"
    return "-".join(parts[:2]) if parts[0] == "control_plane" else "-".join(parts)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave at once where torch was loaded: its compiler complains about its own leaks when the interpreter ends.

    That would push pytest's closing line out of sight. Everything of ours has been closed and reported by now.
    """
    if "torch" not in sys.modules or hasattr(config, "workerinput"):
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(_exit_status[0]))


_exit_status: list[int] = [int(pytest.ExitCode.INTERNAL_ERROR)]


def pytest_sessionfinish(exitstatus: int | pytest.ExitCode) -> None:
    """Remember how the run ended."""
    _exit_status[0] = int(exitstatus)
