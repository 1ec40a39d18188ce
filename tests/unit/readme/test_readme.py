"""What the README claims can be found: picture, links, resources, make targets."""

import re
from pathlib import Path

import pytest
import yaml

from modelpool_api import TRANSITIONS, Capability
from modelpool_operator.api.modelworker import ModelWorker
from readme import diagram

ROOT = Path(__file__).resolve().parents[3]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "charts/modelpool/README.md")]
README = PAGES[0].read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8"))


def test_the_picture_is_the_transition_table():
    assert diagram.written(README) == README, "run: PYTHONPATH=tests python -m readme.diagram --write"


def test_every_move_of_the_table_is_in_the_picture_once():
    drawn = re.findall(r"^ +(\w+) --> (\w+): (.+)$", diagram.mermaid(), re.MULTILINE)
    serving = {"Ready", "Processing", "Idle"}
    moves = [
        (state, target, event)
        for source, target, events in drawn
        for state in (sorted(serving) if source == diagram.GROUP else [source])
        for event in events.split(", ")
    ]
    expected = [(f, t, diagram.words(e)) for f, events in TRANSITIONS.items() for e, t in events.items()]

    assert sorted(expected) == sorted(moves)


def test_a_picture_without_its_place_is_an_error():
    with pytest.raises(ValueError, match="expected one"):
        diagram.written("# nothing here")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_inside_the_repository_lead_somewhere(page):
    for link in links(page):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_resource_on_the_first_screen_is_one_the_operator_understands():
    worker = ModelWorker.from_dict(yaml.safe_load(blocks("yaml")[0]))

    assert worker.spec.pool == "default"
    assert worker.spec.model.capability is Capability.TEXT_EMBEDDING
    assert README[: README.index("```yaml")].count("\n") < 10


def test_the_table_of_capabilities_is_complete_and_in_order():
    rows = re.findall(r"^\| `([a-z-]+)` \| `POST", README, re.MULTILINE)

    assert [str(each) for each in Capability] == rows


def test_the_table_of_states_is_complete_and_in_order():
    names = "|".join(TRANSITIONS)
    rows = re.findall(rf"^\| ({names}) \|", README, re.MULTILINE)

    assert sorted(TRANSITIONS) == sorted(rows)


def test_every_make_target_that_is_named_exists():
    named = [
        line for page in PAGES for line in re.findall(r"(?:^\$ |`)make ([a-z0-9 -]+)", page.read_text(), re.MULTILINE)
    ]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", makefile, re.MULTILINE))

    assert named
    assert {target for line in named for target in line.split()} <= targets
