"""Comparing what a config wants built with what the weights hold, before anything is allocated."""

from collections.abc import Mapping

from modelpool_worker.errors import NeverLoadsError

Shape = tuple[int, ...]


def check_shapes(wanted: Mapping[str, Shape], held: Mapping[str, Shape], *, prefix: str, source: str) -> None:
    """Raise ``NeverLoadsError`` unless every wanted parameter is among the weights, in the same shape.

    Weights may carry ``prefix.`` before their names (they were saved with a head), and may hold more. A pooler that
    the weights lack is let pass where it is small: it is not used for embeddings, and often was not saved.
    """
    largest = max((_size(shape) for shape in held.values()), default=0)
    for name, shape in wanted.items():
        found = held.get(name, held.get(f"{prefix}.{name}"))
        if found is None and name.startswith("pooler.") and _size(shape) <= largest:
            continue
        if found is None:
            raise NeverLoadsError(
                f"the weights of {source} lack {name}, which its config.json asks for; expected weights and config "
                "of the same model"
            )
        if found != shape:
            raise NeverLoadsError(
                f"config.json of {source} asks for {name} of shape {_shown(shape)}, the weights hold {_shown(found)}; "
                "expected weights and config of the same model"
            )


def _size(shape: Shape) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def _shown(shape: Shape) -> str:
    return "×".join(str(length) for length in shape) or "1"
