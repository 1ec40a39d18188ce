"""kopf's memory of what it has handled, switched off: for handlers of single events there is nothing to remember.

kopf asks these storages at every event, also where no handler needs an answer; its own ones copy the whole object
several times for that, which was a third of the operator's time with a thousand workers.
"""

from typing import Any

import kopf


class NoDifferences(kopf.DiffBaseStorage):
    """Remembers no earlier state of an object, so that none is compared."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Return an empty essence: no field matters to us here."""
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        """Return none."""
        return None

    def store(self, **_: Any) -> None:
        """Write nothing into the object."""


class NoProgress(kopf.ProgressStorage):
    """Remembers no progress of handlers: each event is handled once, and what fails is the sweep's."""

    def fetch(self, **_: Any) -> None:
        """Return none."""
        return

    def store(self, **_: Any) -> None:
        """Write nothing into the object."""

    def purge(self, **_: Any) -> None:
        """Remove nothing: nothing was written."""

    def touch(self, **_: Any) -> None:
        """Write nothing into the object."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        """Return the essence: there is nothing of ours in it."""
        return essence
