"""One scene for each module: its namespaces, its users and its operator."""

from collections.abc import Iterator

import pytest

from control_plane.operator_runs.site import Site
from control_plane.security.scene import Scene, scene_on


@pytest.fixture(scope="module")
def scene(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene_on(site, tmp_path_factory.mktemp("scene")) as scene:
        yield scene
