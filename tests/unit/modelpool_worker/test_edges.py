"""The thin edges: token file, termination file, settings, CPUs, imports."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from modelpool_worker.capabilities import registry
from modelpool_worker.cpus import usable_cpus
from modelpool_worker.errors import NeverLoadsError
from modelpool_worker.settings import WorkerSettings, settings_sentence
from modelpool_worker.termination import write_sentence
from modelpool_worker.web.bearer import GRACE_SECONDS, LOOK_SECONDS, BearerToken


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_the_old_token_is_taken_for_two_minutes_after_a_change(tmp_path):
    clock = Clock()
    path = tmp_path / "token"
    path.write_text("old\n")
    token = BearerToken(path, clock)
    assert token.allows("Bearer old")
    path.write_text("new")
    token.refresh()
    clock.now += GRACE_SECONDS - 1
    assert token.allows("Bearer old")
    assert token.allows("bearer new")
    clock.now += 1
    assert not token.allows("Bearer old")
    assert token.allows("Bearer new")


@pytest.mark.parametrize("content", [None, "", "\n"], ids=["missing", "empty", "blank"])
@pytest.mark.parametrize("header", [None, "", "Bearer ", "Bearer", "Bearer \x00", "Basic x"])
def test_without_a_token_everybody_is_refused(tmp_path, content, header):
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    assert not BearerToken(path, Clock()).allows(header)


def test_a_token_that_was_taken_away_lets_nobody_in_after_a_second(tmp_path):
    path, clock = tmp_path / "token", Clock()
    path.write_text("t")
    token = BearerToken(path, clock)
    assert token.allows("Bearer t")
    path.unlink()
    clock.now += LOOK_SECONDS
    assert not token.allows("Bearer t")
    path.write_text("t")
    assert token.allows("Bearer t")


def test_a_token_whose_loss_was_seen_lets_nobody_in_at_once(tmp_path):
    path = tmp_path / "token"
    path.write_text("t")
    token = BearerToken(path, Clock())
    assert token.allows("Bearer t")
    path.unlink()
    token.refresh()
    assert not token.allows("Bearer t")


class Looks:
    """A file that counts how often it is opened."""

    def __init__(self, path):
        self.path, self.count = path, 0

    def open(self, mode):
        self.count += 1
        return self.path.open(mode)


def test_the_file_is_looked_at_once_a_second_by_those_who_are_let_in(tmp_path):
    path, clock = tmp_path / "token", Clock()
    path.write_text("t")
    file = Looks(path)
    token = BearerToken(file, clock)
    for _request in range(100):
        assert token.allows("Bearer t")
    assert file.count == 1
    clock.now += LOOK_SECONDS
    for _request in range(100):
        assert token.allows("Bearer t")
    assert file.count == 2


def test_a_new_token_is_taken_at_once_and_the_old_one_for_two_minutes_from_then(tmp_path):
    path, clock = tmp_path / "token", Clock()
    path.write_text("old")
    token = BearerToken(path, clock)
    assert token.allows("Bearer old")
    path.write_text("new")
    assert token.allows("Bearer new"), "within the second in which the file was looked at"
    clock.now += GRACE_SECONDS - 0.1
    assert [token.allows(f"Bearer {each}") for each in ("old", "new", "other")] == [True, True, False]
    clock.now += 0.1
    assert [token.allows(f"Bearer {each}") for each in ("old", "new", "other")] == [False, True, False]


def test_the_last_word_is_bounded(tmp_path):
    write_sentence(tmp_path / "log", "é" * 5000)
    assert (tmp_path / "log").read_text() == "é" * 1024


def test_a_termination_file_that_cannot_be_written_is_no_crash(tmp_path):
    write_sentence(tmp_path / "no" / "such", "x")


BASE = {"worker_id": "u", "model_name": "m", "capability": "text-embedding", "model_source": "file:///m"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gpus", -1),
        ("dtype", "int4"),
        ("idle_timeout_seconds", -1),
        ("idle_timeout_seconds", float("nan")),
        ("drain_timeout_seconds", 10**9),
        ("worker_id", ""),
        ("max_batch_items", 0),
    ],
)
def test_settings_are_bounded_and_named_when_wrong(name, value):
    with pytest.raises(ValidationError) as refused:
        WorkerSettings(**BASE | {name: value})
    sentence = settings_sentence([str(error["loc"][0]) for error in refused.value.errors()])
    assert f"MODELPOOL_{name.upper()}" in sentence


@pytest.mark.parametrize(
    ("affinity", "cpu_max", "cpus"),
    [(8, "max 100000", 8), (8, "150000 100000", 2), (8, "50000 100000", 1), (2, "800000 100000", 2), (4, "", 4)],
    ids=["no limit", "one and a half", "half", "fewer than the limit", "unreadable"],
)
def test_cpus(affinity, cpu_max, cpus):
    assert usable_cpus(affinity, cpu_max) == cpus


def test_a_capability_that_is_not_here_never_loads():
    with pytest.raises(NeverLoadsError, match="text-embedding"):
        registry.create("mind-reading")


def test_the_ports_open_without_torch():
    """In a fresh interpreter: whatever answers probes must be there before the seconds that torch takes."""
    code = "import sys, modelpool_worker.__main__; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
