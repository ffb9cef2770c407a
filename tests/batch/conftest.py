"""What the tests of batches share: a runner of real commands, and small scenes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.batch_runner import Runner
from tests.support.batches import make_scene


@pytest.fixture(scope="session")
def runner(tmp_path_factory) -> Iterator[Runner]:
    runner = Runner(tmp_path_factory.mktemp("consoles"))
    yield runner
    runner.close()


@pytest.fixture
def scenes(tmp_path) -> Path:
    """Return a folder of three good scenes."""
    for i in range(3):
        make_scene(tmp_path / "in" / f"good_{i}.tif", seed=i)
    return tmp_path / "in"
