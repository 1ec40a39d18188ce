"""The CustomResourceDefinitions, made from the pydantic models.

``python -m modelpool_operator.api.crd crds`` writes them; with ``--check`` it only says whether they are current.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from modelpool_operator.api import cel, names, syntax
from modelpool_operator.api.cel import Rule
from modelpool_operator.api.columns import MODEL_COLUMNS, POOL_COLUMNS, SELECTABLE, WORKER_COLUMNS
from modelpool_operator.api.model import Model
from modelpool_operator.api.modelpool import ModelPool
from modelpool_operator.api.modelworker import ModelWorker
from modelpool_operator.api.resource import ApiModel

Schema = dict[str, Any]

#: ``kubectl get modelpool-all`` lists all our kinds. It must not be the name of one of them: the category would win.
CATEGORY: Final = "modelpool-all"

_HEADER: Final = (
    "# Generated from the models in operator/src/modelpool_operator/api; change those, then run\n"
    "# python -m modelpool_operator.api.crd crds\n"
)
_DROPPED: Final = frozenset({"title", "propertyNames", "$defs", "additionalProperties"})


def structural(node: Mapping[str, Any], definitions: Mapping[str, Schema], *, defaults: bool) -> Schema:
    """Return a JSON schema as a structural OpenAPI v3 schema.

    References are inlined, ``X or null`` becomes X, titles go. Defaults stay where ``defaults`` is set and there
    is something in them: they belong to what users write, not to a status.
    """
    if "$ref" in node:
        target = definitions[str(node["$ref"]).rsplit("/", 1)[-1]]
        return structural({**target, **{k: v for k, v in node.items() if k != "$ref"}}, definitions, defaults=defaults)
    options = [option for option in node.get("anyOf", ()) if option.get("type") != "null"]
    if "anyOf" in node and not node.get("x-kubernetes-int-or-string"):
        rest = {k: v for k, v in node.items() if k != "anyOf"}
        return structural({**options[0], **rest}, definitions, defaults=defaults)

    def below(child: Mapping[str, Any]) -> Schema:
        return structural(child, definitions, defaults=defaults)

    found: Schema = {k: v for k, v in node.items() if k not in _DROPPED | {"properties", "items", "default"}}
    if node.get("x-kubernetes-int-or-string"):
        found.pop("type", None)
    if found.get("type") == "integer":
        found["format"] = "int64"
    if "properties" in node:
        found["properties"] = {name: below(child) for name, child in node["properties"].items()}
    if "items" in node:
        found["items"] = below(node["items"])
    if isinstance(node.get("additionalProperties"), Mapping):
        found["additionalProperties"] = below(node["additionalProperties"])
    if defaults and node.get("default") not in (None, "", [], {}):
        # an object's default is written as empty: the defaults of its fields fill it
        found["default"] = {} if isinstance(node["default"], Mapping) else node["default"]
    return found


def place(schema: Schema, path: str, rules: Sequence[Rule]) -> None:
    """Add rules to the part of a schema that ``path`` names, such as ``spec.template.env[].name``."""
    node = schema
    for step in path.split(".") if path else ():
        node = node["properties"][step.removesuffix("[]")]
        if step.endswith("[]"):
            node = node["items"]
    node.setdefault("x-kubernetes-validations", []).extend(rule.to_schema() for rule in rules)


def object_schema(model: type[ApiModel], rules: Mapping[str, Sequence[Rule]]) -> Schema:
    """Return the schema of a whole object: spec with defaults, status without, rules at their places."""
    generated = model.model_json_schema(by_alias=True)
    definitions = generated.get("$defs", {})
    parts = generated["properties"]
    schema: Schema = {
        "description": generated["description"],
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "version of the API, " + names.API_VERSION},
            "kind": {"type": "string", "description": "kind of the object, " + str(parts["kind"]["default"])},
            "metadata": {"type": "object"},
            "spec": structural(parts["spec"], definitions, defaults=True),
            "status": structural(parts["status"], definitions, defaults=False),
        },
    }
    for path, placed in rules.items():
        place(schema, path, placed)
    return schema


def pool_rules() -> dict[str, Sequence[Rule]]:
    """Return the rules of a ModelPool by their place."""
    return {
        "": [syntax.object_name(), cel.keeps_status(), cel.budget_rule()],
        "spec.memory": syntax.memory("1000Pi"),
        "spec.gpuResourceName": [syntax.gpu_resource()],
        "spec.nodeSelector": syntax.node_selector(),
        "spec.tolerations[]": syntax.toleration(),
        "spec.runtimeClassName": [syntax.subdomain("runtimeClassName", "nvidia")],
        "spec.priorityClasses[]": syntax.priority_class("each of priorityClasses"),
        "status": cel.ledger_rules(),
    }


def worker_rules() -> dict[str, Sequence[Rule]]:
    """Return the rules of a ModelWorker by their place."""
    generated = ModelWorker.model_json_schema(by_alias=True)["$defs"]["ModelWorkerSpec"]
    required = generated["required"]
    optional = [name for name in generated["properties"] if name not in required]
    return {
        "": [syntax.object_name(), cel.keeps_status()],
        "spec": [*cel.immutability(required, optional), syntax.requests_within_memory()],
        **_worker_spec_rules("spec"),
        "status": cel.worker_status_rules(),
        "status.state": cel.state_rules(),
        "status.transitions[]": cel.transition_rules(),
    }


def model_rules() -> dict[str, Sequence[Rule]]:
    """Return the rules of a Model by their place."""
    return {
        "": [syntax.object_name(syntax.MAX_MODEL_CHARS), cel.keeps_status()],
        "spec": [syntax.replicas()],
        "spec.worker": [syntax.requests_within_memory()],
        **_worker_spec_rules("spec.worker"),
    }


def _worker_spec_rules(place: str) -> dict[str, Sequence[Rule]]:
    rules: dict[str, Sequence[Rule]] = {
        "pool": [syntax.pool_reference()],
        "memory": syntax.memory("1Pi"),
        "model": syntax.model(),
        "model.name": [syntax.model_name()],
        "model.source": [syntax.source()],
        "model.revision": [syntax.revision()],
        "model.tokenSecretRef.name": [syntax.subdomain("the name of a Secret", "hub-token")],
        "model.tokenSecretRef.key": [syntax.secret_key()],
        "model.cacheClaim": [syntax.subdomain("model.cacheClaim", "model-cache")],
        "template.resources": [syntax.requests_within_limits()],
        "template.resources.requests": syntax.resource_amounts(),
        "template.resources.limits": syntax.resource_amounts(),
        "template.env[].name": syntax.env_name(),
        "template.nodeSelector": syntax.node_selector(),
        "template.tolerations[]": syntax.toleration(),
        "template.priorityClassName": syntax.priority_class("priorityClassName"),
        "template.imagePullSecrets[].name": [syntax.subdomain("the name of a Secret", "registry")],
        "template.labels": [*syntax.label_keys("labels"), syntax.label_values("labels")],
        "template.annotations": syntax.label_keys("annotations"),
    }
    return {f"{place}.{path}": placed for path, placed in rules.items()}


def definitions() -> dict[str, dict[str, Any]]:
    """Return the CustomResourceDefinitions by file name."""
    pool = _definition(
        names.MODEL_POOL, names.MODEL_POOLS, "mpool", POOL_COLUMNS, object_schema(ModelPool, pool_rules())
    )
    worker = _definition(
        names.MODEL_WORKER, names.MODEL_WORKERS, "mw", WORKER_COLUMNS, object_schema(ModelWorker, worker_rules())
    )
    worker["spec"]["versions"][0]["selectableFields"] = [{"jsonPath": path} for path in SELECTABLE]
    model = _definition(names.MODEL, names.MODELS, "mdl", MODEL_COLUMNS, object_schema(Model, model_rules()))
    model["spec"]["versions"][0]["subresources"]["scale"] = {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    return {f"{names.GROUP}_{crd['spec']['names']['plural']}.yaml": crd for crd in (model, pool, worker)}


def _definition(
    kind: str, plural: str, short_name: str, columns: Sequence[Mapping[str, Any]], schema: Schema
) -> dict[str, Any]:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{names.GROUP}"},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [short_name],
                "categories": [CATEGORY],
            },
            "versions": [
                {
                    "name": names.VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [dict(column) for column in columns],
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


class _PlainDumper(yaml.SafeDumper):
    """Writes repeated parts out: anchors are hard to read and some tools do not take them."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def rendered() -> dict[str, str]:
    """Return the files' texts by name; the same models always give the same bytes."""
    return {
        name: _HEADER + yaml.dump(crd, Dumper=_PlainDumper, sort_keys=False, width=118, allow_unicode=True)
        for name, crd in definitions().items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or with ``--check`` return 1 where one is stale or missing."""
    parser = argparse.ArgumentParser(prog="python -m modelpool_operator.api.crd", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of the generated files, such as crds")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a file is stale")
    options = parser.parse_args(arguments)
    folder: Path = options.folder
    texts = rendered()
    if not options.check:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        return 0
    stale = [name for name, text in texts.items() if not _holds(folder / name, text)]
    for name in stale:
        sys.stderr.write(f"{folder / name} is not what the models say; run: {parser.prog} {folder}\n")
    return 1 if stale else 0


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
