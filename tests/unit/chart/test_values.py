"""values.yaml, its schema and the chart's README say the same."""

import json
import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).resolve().parents[3] / "charts" / "modelpool"
LINES = (CHART / "values.yaml").read_text().splitlines()
VALUES = yaml.safe_load("\n".join(LINES))
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    return SCHEMA["definitions"][reference.rpartition("/")[2]] if reference else schema


def schema_paths(schema: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Return the dotted paths that the schema names, down to where it stops naming keys."""
    schema = resolved(schema)
    if "properties" not in schema:
        yield prefix.removesuffix(".")
        return
    for key, inner in schema["properties"].items():
        yield from schema_paths(inner, f"{prefix}{key}.")


def objects(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if schema.get("type") == "object":
        yield path, schema
    for name in ("properties", "definitions"):
        for key, inner in schema.get(name, {}).items():
            yield from objects(inner, f"{path}/{key}")
    if isinstance(schema.get("items"), dict):
        yield from objects(schema["items"], f"{path}/items")


def comment(path: str) -> str:
    """Return what stands above a value in values.yaml, joined to one line."""
    position = 0
    for level, key in enumerate(path.split(".")):
        opening = f"{'  ' * level}{key}:"
        position = next(number for number in range(position, len(LINES)) if LINES[number].startswith(opening))
    said = takewhile(lambda line: line.lstrip().startswith("# "), reversed(LINES[:position]))
    return " ".join(line.strip().removeprefix("# ") for line in reversed(list(said)))


def readme_table() -> dict[str, tuple[str, str]]:
    """Map each value named in the chart's README to the default and the meaning that stand there."""
    rows = re.findall(r"^\| `([A-Za-z.-]+)` \| `([^`]*)` \| (.*) \|$", (CHART / "README.md").read_text(), re.MULTILINE)
    return {path: (default, meaning) for path, default, meaning in rows}


LEAVES = dict(leaves(VALUES))


def test_every_value_is_in_the_schema_and_every_schema_key_has_a_default():
    # maps like `resources` have defaults inside; the schema names their keys further down
    resources, affinities = ("operator.resources", "gateway.resources"), ("operator.affinity", "gateway.affinity")
    inside_resources = {path for path in schema_paths(SCHEMA) if path.startswith(resources)}
    affinity = {path for path in schema_paths(SCHEMA) if path.startswith(tuple(f"{each}." for each in affinities))}
    expected = {path for path in LEAVES if not path.startswith(resources)} - {*affinities}

    assert expected == set(schema_paths(SCHEMA)) - inside_resources - affinity - {"global"}


@pytest.mark.parametrize(
    ("path", "schema"), list(objects(SCHEMA)), ids=lambda each: each if isinstance(each, str) else ""
)
def test_no_object_of_the_schema_takes_keys_it_does_not_know(path, schema):
    """What may hold anything is what Kubernetes defines itself, and is validated there."""
    kubernetes_own = re.search(r"(Affinity|Selector|ipBlock|/global)$", path)
    assert kubernetes_own or "additionalProperties" in schema, path


@pytest.mark.parametrize("path", LEAVES)
def test_every_value_has_a_sentence_above_it(path):
    assert re.fullmatch(r"\S.*\.", comment(path)), path


def test_the_readme_lists_every_value_with_its_default_and_its_comment():
    expected = {path: (json.dumps(value, separators=(", ", ": ")), comment(path)) for path, value in LEAVES.items()}

    assert expected == readme_table()
