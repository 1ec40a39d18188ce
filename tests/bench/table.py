"""What a person sees while it runs and at the end."""

import sys
from collections.abc import Mapping, Sequence
from typing import TextIO

from bench.figures import Target

TITLES = {
    "per_second": "texts/s",
    "tokens_per_second": "tokens/s",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "first_p50_ms": "first token ms",
    "total_s": "total s",
}


class Table:
    """Rows as they are measured; of their numbers those that have a title are shown."""

    def __init__(self, out: TextIO = sys.stdout, titles: Mapping[str, str] = TITLES) -> None:
        self._out = out
        self._titles = titles

    def title(self, text: str) -> None:
        print(f"\n{text}", file=self._out, flush=True)

    def row(self, round_: int, who: str, load: str, numbers: Mapping[str, float]) -> None:
        shown = "  ".join(f"{numbers[name]:9.2f} {title}" for name, title in self._titles.items() if name in numbers)
        print(f"  round {round_ + 1}  {who:<28} {load:<22} {shown}", file=self._out, flush=True)

    def targets(self, targets: Sequence[Target], figures: Mapping[str, float | None]) -> None:
        """Say of each target whether it is met."""
        self.title("Targets")
        for target in targets:
            value = figures.get(target.key)
            if value is None:
                mark, shown = "not measured", "     –"
            else:
                mark, shown = ("met" if target.met(value) else "MISSED"), f"{value:6.2f}"
            print(
                f"  {mark:<12} {shown}  {target.wanted():<7} {target.key:<42} {target.meaning}",
                file=self._out,
                flush=True,
            )
