"""How a sentence-transformers folder says that its vectors are made: modules, pooling, lengths, prompts.

Pure reading: no model library is imported here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from modelpool_worker.errors import NeverLoadsError
from modelpool_worker.models.model_files import read_json, refuse_code

POOLING_MODES: Final = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
#: Until version 6 of the library each mode was a switch of its own.
_SWITCHES: Final[Mapping[str, str]] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_BASE_CONFIGS: Final = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How vectors are made. ``subfolder`` holds the transformer; a ``max_seq_length`` of None: as the model says."""

    subfolder: str = ""
    pooling: tuple[str, ...] = ("mean",)
    normalize: bool = False
    max_seq_length: int | None = None
    lower_case: bool = False
    prompt: str = ""


def read_recipe(folder: Path, source: str) -> Recipe:
    """Read the recipe; without modules.json mean pooling, not normalised, which is what the library does as well.

    Raises ``NeverLoadsError`` for steps that this worker does not know: leaving one out would give wrong vectors.
    """
    if not (folder / "modules.json").exists():
        return Recipe()
    kinds: list[str] = []
    paths: list[str] = []
    modules = read_json(folder, "modules.json", source)
    for module in modules if isinstance(modules, list) else [None]:
        if not isinstance(module, dict):
            raise NeverLoadsError(f"modules.json of {source} is not a list of modules; copy the model again")
        kinds.append(str(module.get("type", "")).rpartition(".")[2])
        paths.append(_plain(str(module.get("path", "")), source))
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise NeverLoadsError(
            f"modules.json of {source} has steps that this worker does not know; "
            "expected Transformer, Pooling and perhaps Normalize, in this order"
        )
    pooling = _object(folder, f"{paths[1]}/config.json".lstrip("/"), source)
    modes = _modes(pooling, source)
    base = _base_config(folder / paths[0], source)
    prompt = _default_prompt(folder, source)
    if prompt and pooling.get("include_prompt") is False:
        raise NeverLoadsError(f"{source} leaves its prompt out of the pooling, which this worker does not know how to")
    length = base.get("max_seq_length")
    if length is not None and (not isinstance(length, int) or isinstance(length, bool) or length < 3):
        raise NeverLoadsError(f"max_seq_length of {source} is not a length; expected a whole number such as 256")
    return Recipe(
        subfolder=paths[0],
        pooling=modes,
        normalize="Normalize" in kinds,
        max_seq_length=length,
        lower_case=base.get("do_lower_case") is True,
        prompt=prompt,
    )


def _modes(pooling: Mapping[str, Any], source: str) -> tuple[str, ...]:
    said = pooling.get("pooling_mode")
    if said is None:
        on = tuple(mode for switch, mode in _SWITCHES.items() if pooling.get(switch) is True)
        return on or ("mean",)
    modes = tuple(str(mode) for mode in said) if isinstance(said, list) else (str(said),)
    if not modes or any(mode not in POOLING_MODES for mode in modes) or len(modes) > len(POOLING_MODES):
        raise NeverLoadsError(f"the pooling of {source} is not known; expected one of {', '.join(POOLING_MODES)}")
    return modes


def _base_config(folder: Path, source: str) -> Mapping[str, Any]:
    for name in _BASE_CONFIGS:
        if (folder / name).exists():
            return _object(folder, name, source)
    return {}


def _default_prompt(folder: Path, source: str) -> str:
    name = "config_sentence_transformers.json"
    if not (folder / name).exists():
        return ""
    config = _object(folder, name, source)
    chosen = config.get("default_prompt_name")
    prompts = config.get("prompts")
    if chosen is None or not isinstance(prompts, dict):
        return ""
    return str(prompts.get(chosen) or "")


def _object(folder: Path, name: str, source: str) -> Mapping[str, Any]:
    value = read_json(folder, name, source)
    if not isinstance(value, dict):
        raise NeverLoadsError(f"{name} of {source} is not a JSON object; copy the model again")
    refuse_code(value, name, source)
    return value


def _plain(path: str, source: str) -> str:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts:
        raise NeverLoadsError(f"modules.json of {source} names a folder outside of the model; copy the model again")
    return "" if path in ("", ".") else str(parts)
