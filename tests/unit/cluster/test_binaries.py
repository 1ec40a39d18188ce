"""What is built, and when it is built again."""

import shutil

import pytest

from cluster import binaries
from cluster.binaries import PROGRAMS, build_key, ensure, is_new_enough
from cluster.host import ClusterError


@pytest.mark.parametrize(
    ("version", "enough"),
    [("go1.26.8\n", True), ("go1.27", True), ("go2.0", True), ("go1.25.9", False), ("go1.9", False), ("", False)],
)
def test_an_old_go_is_not_used(version, enough):
    assert is_new_enough(version) is enough


@pytest.mark.parametrize("names", [[], ["kube", "docker"]])
def test_unknown_programs_are_refused_with_the_known_ones(names):
    with pytest.raises(ClusterError, match="known are kube, containerd"):
        ensure(names)


def test_every_program_has_locked_sources():
    assert {folder.name for folder in binaries.SOURCES.iterdir()} == set(PROGRAMS)
    for name in PROGRAMS:
        module = (binaries.SOURCES / name / "go.mod").read_text()
        assert ("require" in module) == (binaries.SOURCES / name / "go.sum").exists()


def test_the_key_changes_with_sources_and_flags(tmp_path, monkeypatch):
    shutil.copytree(binaries.SOURCES / "pause", tmp_path / "pause")
    monkeypatch.setattr(binaries, "SOURCES", tmp_path)
    before = build_key("pause")
    with (tmp_path / "pause" / "main.go").open("a") as source:
        source.write("// changed\n")
    changed = build_key("pause")
    assert changed != before
    monkeypatch.setitem(PROGRAMS, "pause", binaries.Program("the pause program", tags="other"))
    assert build_key("pause") not in {before, changed}
