"""API keys from a folder: who has which, and what may change while the gateway runs."""

import pytest

from modelpool_gateway.keys import ApiKeys, read_key

KEY = "sk-0123456789abcdef"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_key_is_found_by_its_bearer_header_alone(tmp_path):
    (tmp_path / "team-a").write_text(f"{KEY}\n")
    keys = ApiKeys(tmp_path, Clock())
    assert keys.find(f"Bearer {KEY}").name == "team-a"
    for header in ("", KEY, f"Basic {KEY}", "Bearer ", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", "Bearer é\udcff"):
        assert keys.find(header) is None, header


def test_a_key_may_be_good_for_some_models_only(tmp_path):
    (tmp_path / "team-a").write_text(f'{{"key": "{KEY}", "models": ["minilm", "llama-*"]}}')
    key = ApiKeys(tmp_path, Clock()).find(f"Bearer {KEY}")
    assert [key.allows(name) for name in ("minilm", "llama-8b", "minilm2", "sd")] == [True, True, False, False]


def test_keys_are_read_again_while_the_gateway_runs(tmp_path):
    clock = Clock()
    keys = ApiKeys(tmp_path, clock)
    assert keys.find(f"Bearer {KEY}") is None
    (tmp_path / "team-a").write_text(KEY)
    clock.now = 6.0
    assert keys.find(f"Bearer {KEY}") is not None
    (tmp_path / "team-a").unlink()
    clock.now = 12.0
    assert keys.find(f"Bearer {KEY}") is None


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"short", id="short"),
        pytest.param(b"sk-0123456789 abcdef", id="a-blank-inside"),
        pytest.param("sk-0123456789abcdefé".encode(), id="not-ascii"),
        pytest.param(b'{"key": "sk-0123456789abcdef"', id="broken-json"),
        pytest.param(b'{"key": 5}', id="no-text"),
        pytest.param(b'{"key": "sk-0123456789abcdef", "models": "minilm"}', id="models-are-no-list"),
        pytest.param(b"x" * 20_000, id="huge"),
    ],
)
def test_an_entry_that_is_no_key_is_refused_with_a_sentence_that_does_not_repeat_it(content):
    with pytest.raises(ValueError, match="expected") as caught:
        read_key("team-a", content)
    assert "0123" not in str(caught.value)


def test_an_entry_that_cannot_be_read_keeps_no_other_one_out(tmp_path):
    (tmp_path / "broken").write_text("x")
    (tmp_path / "team-a").write_text(KEY)
    assert ApiKeys(tmp_path, Clock()).find(f"Bearer {KEY}").name == "team-a"
