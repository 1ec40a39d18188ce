"""Rows of a table that run at the same time, each in a thread: most of a run is waiting."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

Abreast = Callable[[Mapping[str, Callable[[Path], object]]], Callable[[str], None]]
#: Runs at the same time.
ABREAST = 5


@pytest.fixture(scope="module")
def abreast(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Abreast]:
    """``abreast(rows)`` starts all rows whose tests were chosen, by id; what it returns waits for one of them."""
    here = [item for item in request.session.items if item.path == request.path]
    chosen = {item.callspec.id for item in here if hasattr(item, "callspec")}
    folder = tmp_path_factory.mktemp("rows")
    with ThreadPoolExecutor(ABREAST) as pool:

        def start(rows: Mapping[str, Callable[[Path], object]]) -> Callable[[str], None]:
            runs = {name: pool.submit(run, folder / name) for name, run in rows.items() if name in chosen}
            return lambda name: runs[name].result() and None

        yield start
