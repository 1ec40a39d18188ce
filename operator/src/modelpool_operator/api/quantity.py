"""Kubernetes quantities of memory, read into whole MiB."""

import re
from fractions import Fraction
from typing import Final

_UNITS: Final = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "P": 10**15,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "Pi": 2**50,
}
_SYNTAX: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(" + "|".join(_UNITS) + ")", re.ASCII)
_MAX_CHARS: Final = 20

#: The same syntax for the API server's rules; its messages are ours.
MEMORY_PATTERN: Final = r"^[0-9]+(\.[0-9]+)?(" + "|".join(unit for unit in _UNITS if unit) + ")?$"


def parse_mib(q: str) -> int:
    """Return a quantity of memory in MiB, rounded up: what a worker asks for.

    Raises ``ValueError`` with a sentence where ``q`` is not a number with an optional suffix
    (Ki, Mi, Gi, Ti, Pi, or k, M, G, T, P; without one it counts bytes).
    """
    return -(-_bytes(q) // 2**20)


def parse_mib_floor(q: str) -> int:
    """Return a quantity of memory in MiB, rounded down: what a budget can hand out. Raises as ``parse_mib``."""
    return _bytes(q) // 2**20


def _bytes(q: str) -> Fraction:
    found = _SYNTAX.fullmatch(q) if len(q) <= _MAX_CHARS else None
    if found is None:
        raise ValueError(
            "expected an amount of memory: a number with a suffix Ki, Mi, Gi, Ti, Pi, k, M, G, T or P, "
            f"at most {_MAX_CHARS} characters, for example 8Gi"
        )
    return Fraction(found[1]) * _UNITS[found[2]]
