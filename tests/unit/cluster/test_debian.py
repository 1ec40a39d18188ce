"""Programs of Debian packages: the installed one is taken, else it is fetched, else said what is missing."""

import shutil

import pytest

from cluster import debian
from cluster.host import ClusterError


def test_an_installed_program_is_taken_as_it_is():
    (program,) = debian.command("sh")
    assert program.endswith("/sh")


def test_an_unpacked_program_finds_the_libraries_that_came_with_it(tmp_path, monkeypatch):
    for file in ("usr/sbin/no-such-proxy", "usr/lib/here/libown.so.1"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    monkeypatch.setattr(debian, "_unpacked", lambda package: tmp_path)
    libraries = f"LD_LIBRARY_PATH={tmp_path}/usr/lib/here"
    assert debian.command("no-such-proxy") == ("env", libraries, f"{tmp_path}/usr/sbin/no-such-proxy")


def test_where_there_is_no_debian_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(ClusterError, match="no-such-proxy is not installed"):
        debian.command("no-such-proxy")
