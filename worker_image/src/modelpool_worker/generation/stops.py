"""Stop strings: where a growing text ends, and what of it must wait."""

from collections.abc import Sequence


class StopStrings:
    """Lets text through up to the first stop string. What may be the beginning of one is held back.

    The stop string that is complete first ends the text, however the text was cut into pieces.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def add(self, text: str) -> str:
        """Return what is certain now; nothing more once ``found``."""
        if not self._stops or self.found:
            return "" if self.found else text
        known = self._held + text
        ends = [(at + len(stop), at) for stop in self._stops if (at := known.find(stop)) >= 0]
        if ends:
            self.found, self._held = True, ""
            return known[: min(ends)[1]]
        keep = max(_overlap(known, stop) for stop in self._stops)
        certain, self._held = known[: len(known) - keep], known[len(known) - keep :]
        return certain

    def end(self) -> str:
        """Return what was held back: the text is over and no stop string came of it."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of ``text`` are a beginning of ``stop``."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
