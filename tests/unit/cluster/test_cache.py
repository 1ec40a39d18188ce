"""The build cache: whole or absent, built once, pruned."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cluster import cache
from cluster.cache import cached, hash_of

TESTS = Path(__file__).parents[2]


def writing(text):
    return lambda folder: (folder / "file").write_text(text)


def never(folder):
    raise AssertionError("this must not be built")


def entries(root, kind="kind"):
    return {path.name for path in (root / kind).iterdir() if path.name != ".lock"}


def test_an_entry_is_built_once(tmp_path):
    first = cached("kind", "a", writing("built"), root=tmp_path)
    assert cached("kind", "a", never, root=tmp_path) == first
    assert (first / "file").read_text() == "built"


def test_a_failed_build_leaves_nothing_and_passes_its_error_on(tmp_path):
    def fail(folder):
        (folder / "half").write_text("")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        cached("kind", "a", fail, root=tmp_path)
    assert entries(tmp_path) == set()


def test_a_killed_build_is_no_entry_and_the_next_build_clears_it(tmp_path):
    program = """
import os, signal, sys
from pathlib import Path
from cluster import cache
from cluster.cache import cached
def build(folder):
    (folder / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
cached("kind", "a", build, root=Path(sys.argv[1]))
"""
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(entries(tmp_path)) == 1
    entry = cached("kind", "a", writing("whole"), root=tmp_path)
    assert entries(tmp_path) == {"a"}
    assert [path.name for path in entry.iterdir()] == ["file"]


def test_a_second_run_waits_for_the_build_of_the_first(tmp_path, monkeypatch):
    results = []
    second = threading.Thread(target=lambda: results.append(cached("kind", "a", never, root=tmp_path)))
    waits = threading.Event()
    monkeypatch.setattr(
        cache, "print", lambda *said, **_: waits.set() if "Waiting for" in said[0] else None, raising=False
    )

    def build(folder):
        second.start()
        # The second run says that it waits before it waits: then the lock is what holds it back.
        assert waits.wait(30)
        (folder / "file").write_text("built")

    first = cached("kind", "a", build, root=tmp_path)
    second.join(30)
    assert results == [first]


def test_the_entries_used_last_are_kept(tmp_path):
    for number, name in enumerate(["old", "used again", "new"]):
        path = cached("kind", name, writing(name), root=tmp_path, keep=9)
        os.utime(path, (number, number))
    cached("kind", "used again", never, root=tmp_path)
    cached("kind", "newest", writing("newest"), root=tmp_path, keep=2)
    assert entries(tmp_path) == {"used again", "newest"}


def test_read_only_entries_are_pruned_too(tmp_path):
    def build(folder):
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_text("")
        (folder / "sub").chmod(0o500)

    for name in ("a", "b", "c"):
        cached("kind", name, build, root=tmp_path, keep=1)
    assert entries(tmp_path) == {"c"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param({"texts": ["ab", "c"]}, {"texts": ["a", "bc"]}, id="texts do not run into each other"),
        pytest.param({"texts": ["a", "b"]}, {"texts": ["b", "a"]}, id="order of texts counts"),
    ],
)
def test_different_inputs_have_different_hashes(one, other):
    assert hash_of(**one) != hash_of(**other)


def test_the_hash_sees_names_and_contents_of_files(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("same")
    second.write_text("same")
    before = hash_of(files=[first, second])
    assert hash_of(files=[second, first]) == before
    assert hash_of(files=[first]) != hash_of(files=[second])
    second.write_text("changed")
    assert hash_of(files=[first, second]) != before
