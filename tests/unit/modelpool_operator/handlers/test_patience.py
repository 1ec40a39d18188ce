"""The watches' pauses between two tries."""

import itertools

from modelpool_operator.handlers.watches import Patience


def test_the_pauses_begin_short_grow_and_never_end():
    """A minute of 503s may not end the operator: what is iterated is what kopf waits, and the end is what ends it."""
    patience = Patience()
    first, again = (list(itertools.islice(patience, 1000)) for _ in range(2))
    assert first == again == sorted(first)
    assert (first[0], first[-1]) == (1.0, 10.0)
