"""From samples to figures: medians, ratios of paired rounds, targets. Pure."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sample:
    """One measurement: in which round, of whom, under which load, and its numbers by name."""

    round: int
    who: str
    load: str
    numbers: Mapping[str, float]


@dataclass(frozen=True)
class Target:
    """What a figure should reach: at least ``least``, or at most ``most``."""

    key: str
    meaning: str
    least: float | None = None
    most: float | None = None

    def met(self, value: float) -> bool:
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def wanted(self) -> str:
        return f"≥ {self.least:g}" if self.least is not None else f"≤ {self.most:g}"


class Samples:
    """All samples of one subject."""

    def __init__(self, samples: Iterable[Sample] = ()) -> None:
        self.all = list(samples)

    def median(self, who: str, load: str, number: str) -> float | None:
        """The median over the rounds; None where nothing was measured."""
        values = [
            each.numbers[number] for each in self.all if (each.who, each.load) == (who, load) and number in each.numbers
        ]
        return statistics.median(values) if values else None

    def ratio(self, number: str, top: tuple[str, str], bottom: tuple[str, str]) -> float | None:
        """The median of the ratios of each round, which a machine that slows down for all does not change.

        ``top`` and ``bottom`` are (who, load). None where no round has both.
        """
        ratios = [
            self._of(each, top, number) / self._of(each, bottom, number)
            for each in sorted({sample.round for sample in self.all})
            if self._has(each, top, number) and self._has(each, bottom, number)
        ]
        return statistics.median(ratios) if ratios else None

    def difference(self, number: str, who: tuple[str, str], without: tuple[str, str]) -> float | None:
        """The median of the differences of each round; ``who`` and ``without`` are (who, load). None as for `ratio`."""
        differences = [
            self._of(each, who, number) - self._of(each, without, number)
            for each in sorted({sample.round for sample in self.all})
            if self._has(each, who, number) and self._has(each, without, number)
        ]
        return statistics.median(differences) if differences else None

    def medians(self) -> dict[str, dict[str, dict[str, float | None]]]:
        """Who → load → number → median over the rounds."""
        tree: dict[str, dict[str, dict[str, float | None]]] = {}
        for each in self.all:
            numbers = tree.setdefault(each.who, {}).setdefault(each.load, {})
            numbers |= {name: self.median(each.who, each.load, name) for name in each.numbers if name not in numbers}
        return tree

    def _find(self, round_: int, place: tuple[str, str]) -> Sample | None:
        found = [each for each in self.all if each.round == round_ and (each.who, each.load) == place]
        return found[0] if found else None

    def _has(self, round_: int, place: tuple[str, str], number: str) -> bool:
        found = self._find(round_, place)
        return found is not None and bool(found.numbers.get(number))

    def _of(self, round_: int, place: tuple[str, str], number: str) -> float:
        found = self._find(round_, place)
        if found is None:
            raise KeyError(f"no sample of {place} in round {round_}")
        return found.numbers[number]


def worst(ratios: Iterable[float | None], *, high_is_good: bool) -> float | None:
    """The ratio furthest from good of those that were measured."""
    known = [each for each in ratios if each is not None]
    if not known:
        return None
    return min(known) if high_is_good else max(known)


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """``{"a.b": 1}`` → ``{"a": {"b": 1}}``."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *path, last = key.split(".")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[last] = value
    return tree
