"""Bounds of a JSON request, which all who read one hold it to before they parse it. Pure."""

import re
from collections import Counter
from collections.abc import Callable
from typing import Final

#: Lists and objects. Parsing holds up everything else, in a thread as well, for 15 ms at the three of these.
MAX_NESTED: Final = 4096
#: Members of objects, and entries of lists.
MAX_MEMBERS: Final = 65_536
MAX_ENTRIES: Final = 1_048_576
_LEAST: Final = min(MAX_NESTED, MAX_MEMBERS, MAX_ENTRIES)
_LOOK_EVERY: Final = 4096

# linear in the body: nothing is given back, and a string that never ends is taken to its end
_STRING_OR_MARK: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{:,]', re.DOTALL)


def too_many_parts(body: bytes) -> str | None:
    """Return a sentence where a body has far more parts than any request; what stands in strings is none."""
    if len(body) <= _LEAST or _too_many(lambda mark: body.count(mark)) is None:
        return None
    outside: Counter[bytes] = Counter()
    for number, match in enumerate(_STRING_OR_MARK.finditer(body)):
        if match.end() - match.start() == 1:
            outside[match.group()] += 1
        if number % _LOOK_EVERY == 0 and (sentence := _too_many(outside.__getitem__)):
            return sentence
    return _too_many(outside.__getitem__)


def _too_many(count: Callable[[bytes], int]) -> str | None:
    if count(b"[") + count(b"{") > MAX_NESTED:
        return f"the body has too many lists and objects; expected at most {MAX_NESTED}"
    if count(b":") > MAX_MEMBERS:
        return f"the body's objects have too many members; expected at most {MAX_MEMBERS}"
    if count(b",") > MAX_ENTRIES:
        return f"the body's lists have too many entries; expected at most {MAX_ENTRIES}"
    return None
