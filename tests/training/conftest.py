"""Fixtures that several tests of training share."""

import numpy as np
import pytest

import pipeline.training.run as running
import pipeline.training.validate as validating
from tests.support.networks import add_tiny_network
from tests.support.tiles import COLORS, make_tiles, write_split, write_tile

PIXELS = np.ones((1, 8, 8), np.uint16)


@pytest.fixture(scope="module")
def tiny_training():
    """Use the tiny network, average at each of an epoch's five steps, and leave out the slow plots."""
    with pytest.MonkeyPatch.context() as patch:
        add_tiny_network(patch)
        patch.setattr(running, "EMA_EVERY", 1)
        patch.setattr(validating, "write_report", lambda *arguments: None)
        yield


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return make_tiles(tmp_path_factory.mktemp("data") / "tiles", per_class=40)


@pytest.fixture
def three_parts(tiles):
    """Put split files into the folder of tiles: 30 of each class train, 5 choose, 5 are reported on."""
    parts = [
        [f"{name}/{name}_{i}.png" for name in COLORS for i in some]
        for some in (range(30), range(30, 35), range(35, 40))
    ]
    write_split(tiles, *parts)
    yield parts
    for path in tiles.glob("split-*.txt"):
        path.unlink()


@pytest.fixture
def folder(tmp_path):
    return make_tiles(tmp_path / "tiles", size=8)


@pytest.fixture(scope="module")
def scattered(tmp_path_factory):
    """Return tiles of three classes in clusters: 40 places, with one to four tiles within 2 km each."""
    folder = tmp_path_factory.mktemp("scattered")
    rng = np.random.default_rng(0)
    for place in range(40):
        corner = (300_000 + 55_000 * (place % 8), 5_000_000 + 55_000 * (place // 8))
        for i in range(rng.integers(1, 5)):
            name = ("Field", "Forest", "Water")[rng.choice(3, p=(0.5, 0.3, 0.2))]
            near = (corner[0] + rng.uniform(0, 2000), corner[1] + rng.uniform(0, 2000))
            write_tile(folder / name / f"{place}_{i}.tif", PIXELS, place=near)
    return folder
