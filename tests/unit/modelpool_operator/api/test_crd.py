"""The CRD files: made from the models, structural, and as fresh as the models."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import Field

from modelpool_api import STATES
from modelpool_operator.api import crd, names
from modelpool_operator.api.cel import Rule
from modelpool_operator.api.resource import ApiModel

CRDS = Path(__file__).resolve().parents[4] / "crds"
DEFINITIONS = crd.definitions()


def schema(kind: str) -> dict[str, Any]:
    return DEFINITIONS[f"{names.GROUP}_{kind}.yaml"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every part of a schema with its path."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in node:
            yield from nodes(node[key], f"{path}[]")


PARTS = [(kind, path, node) for kind in ("models", "modelpools", "modelworkers") for path, node in nodes(schema(kind))]


def test_the_files_are_what_the_models_say():
    assert {path.name: path.read_text(encoding="utf-8") for path in CRDS.glob("*.yaml")} == crd.rendered()


def test_the_same_models_give_the_same_bytes_and_the_text_is_the_definition():
    assert crd.rendered() == crd.rendered()
    assert {name: yaml.safe_load(text) for name, text in crd.rendered().items()} == DEFINITIONS


def test_check_says_which_file_is_stale(tmp_path, capsys):
    assert crd.main([str(tmp_path), "--check"]) == 1
    assert crd.main([str(tmp_path)]) == 0
    assert crd.main([str(tmp_path), "--check"]) == 0
    capsys.readouterr()
    stale = tmp_path / "modelpool.dev_modelpools.yaml"
    stale.write_text(stale.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert crd.main([str(tmp_path), "--check"]) == 1
    assert capsys.readouterr().err == (
        f"{stale} is not what the models say; run: python -m modelpool_operator.api.crd {tmp_path}\n"
    )


def test_every_part_has_one_type_and_none_of_what_a_structural_schema_may_not_have():
    forbidden = {"$ref", "$defs", "title", "allOf", "oneOf", "const", "exclusiveMinimum", "propertyNames"}
    for kind, path, node in PARTS:
        assert not forbidden & set(node), (kind, path)
        assert isinstance(node.get("type"), str) != bool(node.get("x-kubernetes-int-or-string")), (kind, path)
        assert ("anyOf" in node) == ("x-kubernetes-int-or-string" in node), (kind, path)


def test_every_field_has_a_description():
    for kind, path, node in PARTS:
        if path and path != ".metadata" and not path.endswith("[]"):
            assert len(node["description"]) > 10 or path.endswith((".gpus", ".memoryMiB", ".value")), (kind, path)


def test_everything_that_can_grow_is_bounded():
    """The cost of rules is computed from these bounds."""
    for kind, path, node in PARTS:
        if path in (".apiVersion", ".kind", ".metadata"):
            continue
        match node.get("type"):
            case "string":
                assert "maxLength" in node or "enum" in node or node.get("format") == "date-time", (kind, path)
            case "array":
                assert "maxItems" in node, (kind, path)
                assert "x-kubernetes-list-type" in node or "tolerations" in path, (kind, path)
            case "object" if "properties" not in node:
                assert "maxProperties" in node, (kind, path)


def test_defaults_belong_to_specs():
    assert not [path for _, path, node in PARTS if path.startswith(".status") and "default" in node]
    assert {path for kind, path, node in PARTS if kind == "modelworkers" and "default" in node} == {
        ".spec.model.dtype",
        ".spec.model.tokenSecretRef.key",
        ".spec.gpus",
        ".spec.priority",
        ".spec.eviction",
        ".spec.shutdown",
        ".spec.service",
        ".spec.template.tolerations[].operator",
    }


def test_the_states_are_those_of_the_table():
    status = schema("modelworkers")["properties"]["status"]["properties"]
    expected = [str(state) for state in STATES]
    assert status["state"]["enum"] == expected
    for end in ("from", "to"):
        assert status["transitions"]["items"]["properties"][end]["enum"] == expected


def test_columns_and_selectors_name_fields_that_exist():
    for name, definition in DEFINITIONS.items():
        version = definition["spec"]["versions"][0]
        paths = [column["jsonPath"] for column in version["additionalPrinterColumns"]]
        paths += [selectable["jsonPath"] for selectable in version.get("selectableFields", [])]
        paths += list(version["subresources"].get("scale", {}).values())
        known = {path for path, _ in nodes(version["schema"]["openAPIV3Schema"])} | {".metadata.creationTimestamp"}
        # a condition is looked up by its type
        assert {re.sub(r"\[\?\(.*?\)\]", "[]", path) for path in paths} <= known, name


def test_no_text_looks_like_a_helm_template():
    """The chart carries these files; braces in pairs would be read as a template."""
    assert "{{" not in json.dumps(DEFINITIONS)


class _Inner(ApiModel):
    """Inner."""

    number: int = Field(default=3, description="a number")


class _Sample(ApiModel):
    """Sample."""

    inner: _Inner = Field(default=_Inner(), description="with default")
    maybe: _Inner | None = Field(default=None, description="or nothing")
    many: tuple[_Inner, ...] = Field(default=(), max_length=2, description="several")
    by_name: dict[str, _Inner] = Field(default_factory=dict, description="by name")
    words: str = Field(default="", description="nothing to default to")
    flag: bool = Field(default=False, description="false is a default")


def test_a_schema_is_made_structural():
    generated = _Sample.model_json_schema(by_alias=True)
    inner = {
        "type": "object",
        "properties": {"number": {"type": "integer", "format": "int64", "description": "a number"}},
    }
    filled = {
        "type": "object",
        "properties": {"number": {"type": "integer", "format": "int64", "description": "a number", "default": 3}},
    }
    for defaults, part in ((False, inner), (True, filled)):
        found = crd.structural(generated, generated["$defs"], defaults=defaults)["properties"]
        with_default = {"default": {}} if defaults else {}
        assert found == {
            "inner": {**part, "description": "with default", **with_default},
            "maybe": {**part, "description": "or nothing"},
            "many": {
                "type": "array",
                "maxItems": 2,
                "description": "several",
                "items": {**part, "description": "Inner."},
            },
            "byName": {
                "type": "object",
                "description": "by name",
                "additionalProperties": {**part, "description": "Inner."},
            },
            "words": {"type": "string", "description": "nothing to default to"},
            "flag": {
                "type": "boolean",
                "description": "false is a default",
                **({"default": False} if defaults else {}),
            },
        }


def test_a_rule_for_a_field_that_is_not_there_is_an_error():
    with pytest.raises(KeyError):
        crd.place({"properties": {"a": {}}}, "b", [Rule("true", "never said")])
