"""A model folder, checked before a library sees it: safetensors only, whole, nothing that runs or fetches code."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

from modelpool_worker.errors import NeverLoadsError

WEIGHTS: Final = "model.safetensors"

_MAX_HEADER_BYTES: Final = 100_000_000  # what the safetensors library itself accepts
_MAX_CONFIG_BYTES: Final = 32 * 1024 * 1024
_MAX_DEPTH: Final = 32
_MAX_SHARDS: Final = 4096
_PICKLES: Final = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".h5", ".msgpack", ".npz"})
#: Attention implementations that are part of the libraries; any other value may name code to be fetched.
_PLAIN_ATTENTION: Final = (None, "eager", "sdpa")
_CONFIGS: Final = (
    "config.json",
    "tokenizer_config.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
)
#: From which layer on Qwen's sliding window counts: often left at its default, far above the number of layers.
_NOT_A_DEPTH: Final = "max_window_layers"
_DTYPE_BITS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What a checked folder holds: its config and the shape of every tensor, by name."""

    folder: Path
    source: str
    config: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]


def check(folder: Path, source: str, whole: str = WEIGHTS) -> ModelFiles:
    """Check a model's folder; raise ``NeverLoadsError`` with the true reason where it may not or cannot be loaded.

    ``source`` is how its user calls the model; it appears in the sentences. ``whole`` is the name of its weights where
    they are one file; the parts of larger ones stand in ``{whole}.index.json``.
    """
    if not folder.is_dir():
        raise NeverLoadsError(f"{source} is not a folder; expected a folder with config.json and {whole}")
    for name in _CONFIGS:
        if (folder / name).exists():
            refuse_code(read_json(folder, name, source), name, source)
    if (folder / "adapter_config.json").exists():
        raise NeverLoadsError(f"{source} is an adapter, not a whole model; merge it into its base model and save that")
    shapes: dict[str, tuple[int, ...]] = {}
    for name in _weight_files(folder, source, whole):
        shapes |= read_shapes(folder / name, source)
    if not (folder / "config.json").exists():
        raise NeverLoadsError(f"{source} has no config.json; expected a folder as saved by save_pretrained()")
    config = read_json(folder, "config.json", source)
    if not isinstance(config, dict):
        raise NeverLoadsError(f'config.json of {source} is not a JSON object; expected for example {{"model_type": …}}')
    _refuse_depth_beyond_weights(config, len(shapes), source)
    return ModelFiles(folder, source, config, shapes)


def read_json(folder: Path, name: str, source: str) -> Any:
    """Read a JSON file of the folder, at most 32 MiB; raise ``NeverLoadsError`` where it is none."""
    path = folder / name
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise NeverLoadsError(f"{name} of {source} is larger than 32 MiB; no model's configuration is")
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise NeverLoadsError(f"{source} has no {name}; copy the whole model folder") from None
    except OSError as error:
        raise NeverLoadsError(
            f"{name} of {source} cannot be read ({type(error).__name__}); the worker runs as user 10001 and needs to"
        ) from None
    except (ValueError, RecursionError):
        raise NeverLoadsError(f"{name} of {source} is not valid JSON; copy the model again") from None


def refuse_code(config: Any, name: str, source: str) -> None:
    """Raise ``NeverLoadsError`` for keys that run code of the model's author or fetch some, at any depth."""
    for key, value in _keys(config, name, source):
        if key == "auto_map" and value:
            raise NeverLoadsError(
                f"{name} of {source} has auto_map: the model brings its own Python code, which this worker never runs; "
                "use a model whose architecture transformers knows by itself"
            )
        if key in ("attn_implementation", "_attn_implementation") and (
            not isinstance(value, str | None) or value not in _PLAIN_ATTENTION
        ):
            raise NeverLoadsError(
                f"{name} of {source} sets {key}, which may name code to be fetched; remove it, or use eager or sdpa"
            )
        if key == "quantization_config" and value:
            raise NeverLoadsError(
                f"{name} of {source} has quantization_config; quantized models are not served, use the original one"
            )


def read_shapes(path: Path, source: str) -> dict[str, tuple[int, ...]]:
    """Read a safetensors file's header and return the shapes by tensor name; check that the file is whole.

    Raises ``NeverLoadsError``; reads the header only, never the tensors.
    """
    name = path.name
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if start == b"version ":
                raise NeverLoadsError(
                    f"{name} of {source} is a Git LFS pointer, not the weights; fetch them with `git lfs pull`"
                )
            if len(start) < 8 or length > _MAX_HEADER_BYTES:
                raise NeverLoadsError(f"{name} of {source} is not a safetensors file; copy the model again")
            if 8 + length > size:
                raise _cut_short(name, source, 8 + length, size)
            header = json.loads(file.read(length))
    except OSError as error:
        raise NeverLoadsError(
            f"{name} of {source} cannot be read ({type(error).__name__}); expected a safetensors file that user 10001 "
            "may read"
        ) from None
    except (ValueError, RecursionError):
        raise NeverLoadsError(f"the header of {name} of {source} cannot be read; copy the model again") from None
    if not isinstance(header, dict):
        raise NeverLoadsError(f"the header of {name} of {source} cannot be read; copy the model again")
    shapes: dict[str, tuple[int, ...]] = {}
    end = 0
    for tensor, entry in header.items():
        if tensor != "__metadata__":
            shape, last = _shape(entry, name, source)
            shapes[tensor] = shape
            end = max(end, last)
    if (promised := 8 + length + end) > size:
        raise _cut_short(name, source, promised, size)
    if promised < size:
        raise NeverLoadsError(
            f"{name} of {source} is longer than its header says: {_grouped(promised)} bytes are promised, the file has "
            f"{_grouped(size)}; copy the model again"
        )
    return shapes


def _shape(entry: Any, name: str, source: str) -> tuple[tuple[int, ...], int]:
    try:
        begin, end = (int(offset) for offset in entry["data_offsets"])
        shape = tuple(int(length) for length in entry["shape"])
        bits = _DTYPE_BITS.get(entry["dtype"])
    except (TypeError, KeyError, ValueError, OverflowError):
        raise NeverLoadsError(f"the header of {name} of {source} cannot be read; copy the model again") from None
    wrong = begin < 0 or end < begin or any(length < 0 for length in shape)
    if wrong or (bits is not None and prod(shape) * bits != (end - begin) * 8):
        raise NeverLoadsError(f"a tensor in {name} of {source} has another size than its shape; copy the model again")
    return shape, end


def _weight_files(folder: Path, source: str, whole: str) -> list[str]:
    if (folder / whole).exists():
        return [whole]
    index_name = f"{whole}.index.json"
    if (folder / index_name).exists():
        index = read_json(folder, index_name, source)
        names = index.get("weight_map") if isinstance(index, dict) else None
        files = sorted({str(name) for name in names.values()}) if isinstance(names, dict) else []
        plain = all(name == Path(name).name and name.endswith(".safetensors") for name in files)
        if not files or not plain or len(files) > _MAX_SHARDS:
            raise NeverLoadsError(f"{index_name} of {source} names no safetensors files; copy the model again")
        if missing := [name for name in files if not (folder / name).exists()]:
            raise NeverLoadsError(f"{len(missing)} of {len(files)} weight files of {source} are missing; copy it again")
        return files
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
    if pickles:
        raise no_safetensors(source, pickles, whole)
    raise NeverLoadsError(f"{source} has no {whole}; expected a folder as saved by save_pretrained()")


def no_safetensors(source: str, pickles: list[str], whole: str = WEIGHTS) -> NeverLoadsError:
    """Say that a model comes as pickles only, which can run any code when they are opened."""
    shown = "".join(c if c.isascii() and c.isprintable() else "?" for c in pickles[0])[:80]
    return NeverLoadsError(
        f"{source} has {shown} and no {whole}: such files can run any code when they are opened and are never read; "
        "save the model with safe_serialization=True"
    )


def _refuse_depth_beyond_weights(config: Mapping[str, Any], tensors: int, source: str) -> None:
    """A config that asks for more layers than there are tensors would be built layer by layer before it fails."""
    for key, value in _keys(config, "config.json", source):
        if ("layers" not in key and key not in ("n_layer", "depth", "num_blocks")) or key == _NOT_A_DEPTH:
            continue
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int) and number > max(tensors, 1):
                raise NeverLoadsError(
                    f"config.json of {source} asks for {_grouped(number)} layers, its weights hold {_grouped(tensors)} "
                    "tensors; copy the model again"
                )


def _keys(value: Any, name: str, source: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
    if depth > _MAX_DEPTH:
        raise NeverLoadsError(f"{name} of {source} is nested deeper than {_MAX_DEPTH} levels; no configuration is")
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key), inner
            yield from _keys(inner, name, source, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner, name, source, depth + 1)


def _cut_short(name: str, source: str, promised: int, size: int) -> NeverLoadsError:
    return NeverLoadsError(
        f"{name} of {source} is cut short: the header promises {_grouped(promised)} bytes, the file has "
        f"{_grouped(size)}; copy the model again"
    )


def _grouped(number: int) -> str:
    return f"{number:,}".replace(",", " ")
