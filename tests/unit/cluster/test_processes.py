"""Processes are known by id and start time, recorded, and ended for certain."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.host import ClusterError
from cluster.processes import Identity, ProcessGroup, wait_gone

TESTS = Path(__file__).parents[2]
SLEEP = ["sleep", "600"]


def test_an_id_that_is_used_again_is_another_process():
    own = Identity.of(os.getpid())
    assert own is not None
    assert own.alive()
    assert not Identity(own.pid, own.started + 1).alive()


def test_signals_reach_only_the_process_that_was_recorded(tmp_path):
    group = ProcessGroup(tmp_path)
    process = group.start("sleep", SLEEP)
    Identity(process.pid, process.started + 1).signal(signal.SIGKILL)
    assert process.alive()
    group.stop_all()
    assert not process.alive()


def test_another_run_finds_and_ends_what_was_recorded(tmp_path):
    started = ProcessGroup(tmp_path)
    process = started.start("sleep", SLEEP)
    found = ProcessGroup(tmp_path)
    assert found.recorded() == {"sleep": process}
    found.stop_all()
    assert not process.alive()
    assert found.recorded() == {}
    assert started.dead() == []


def test_a_process_that_ended_by_itself_is_reported_with_its_last_words(tmp_path):
    group = ProcessGroup(tmp_path)
    process = group.start("shell", ["sh", "-c", "echo no such luck >&2; exit 3"])
    assert wait_gone([process], 10) == []
    assert group.dead() == ["shell"]
    assert "no such luck" in str(group.died("shell"))
    group.stop_all()


def test_the_callers_environment_is_not_handed_on(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    group = ProcessGroup(tmp_path)
    process = group.start("env", ["env"], {"ADDED": "yes"})
    assert wait_gone([process], 10) == []
    said = group.log_tail("env")
    assert "ADDED=yes" in said
    assert "HTTPS_PROXY" not in said
    group.stop_all()


def test_processes_end_with_a_parent_that_is_killed(tmp_path):
    program = """
import os, signal, sys
from pathlib import Path
from cluster.processes import ProcessGroup
folder = Path(sys.argv[1])
ProcessGroup(folder, die_with_parent=True).start("sleep", ["sh", "-c", f"touch {folder}/runs; exec sleep 600"])
while not (folder / "runs").exists():
    pass
os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    left = ProcessGroup(tmp_path).recorded()
    assert list(left) == ["sleep"]
    assert wait_gone(left.values(), 10) == []


def test_a_broken_record_is_an_error_that_says_what_to_do(tmp_path):
    (tmp_path / "processes.json").write_text("[1]")
    with pytest.raises(ClusterError, match="remove it"):
        ProcessGroup(tmp_path).recorded()
