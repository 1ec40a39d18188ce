"""The tokens of pools whose workers' ports are closed."""

import pytest

from modelpool_gateway.tokens import PoolTokens


def test_a_token_is_read_by_the_name_of_its_pool_and_again_a_little_later(tmp_path):
    now = 0.0
    tokens = PoolTokens(tmp_path, lambda: now)
    assert tokens.of("gpu") is None
    (tmp_path / "gpu").mkdir()
    (tmp_path / "gpu" / "token").write_text("first\n")
    now = 4.0
    assert tokens.of("gpu") is None, "files are not looked at for every request"
    now = 5.0
    assert tokens.of("gpu") == "first"
    (tmp_path / "gpu" / "token").write_text("second")
    now = 10.0
    assert tokens.of("gpu") == "second"


@pytest.mark.parametrize("content", [b"", b"  \n", b"a\nb", "schlüssel".encode(), b"x" * 5000], ids=repr)
def test_what_does_not_fit_into_a_header_is_none(tmp_path, content):
    (tmp_path / "gpu").mkdir()
    (tmp_path / "gpu" / "token").write_bytes(content)
    assert PoolTokens(tmp_path).of("gpu") is None


@pytest.mark.parametrize("pool", ["", "..", "../gpu", "a/b", ".hidden"])
def test_no_name_leads_out_of_the_folder(tmp_path, pool):
    (tmp_path / "token").write_text("secret")
    (tmp_path / "gpu").mkdir()
    (tmp_path / "gpu" / "token").write_text("secret")
    assert PoolTokens(tmp_path / "gpu").of(pool) is None
