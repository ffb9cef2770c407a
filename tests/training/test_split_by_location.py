"""Splits by location: blocks of ground are in one part only."""

from math import acos, cos, radians, sin

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer

from pipeline.errors import TrainingError
from pipeline.training.folders import find_tiles
from pipeline.training.split_by_location import BLOCK_KM, block_of
from pipeline.training.splits import split_tiles
from tests.support.tiles import class_counts, make_multispectral, write_tile

TO_DEGREES = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
PIXELS = np.ones((1, 8, 8), np.uint16)
place = st.tuples(st.floats(-180, 180), st.floats(-70, 70))


def blocks(folder, names) -> set[tuple[int, int]]:
    found = set()
    for name in names:
        with rasterio.open(folder / name) as tile:
            found.add(block_of(*TO_DEGREES.transform(*tile.xy(3.5, 3.5))))
    return found


def kilometres(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Return the great-circle distance between two (longitude, latitude) places in degrees."""
    (x0, y0), (x1, y1) = (tuple(map(radians, place)) for place in (a, b))
    cosine = sin(y0) * sin(y1) + cos(y0) * cos(y1) * cos(x1 - x0)
    return 6371 * acos(max(-1.0, min(1.0, cosine)))


@pytest.mark.parametrize("share", [0.2, 0.3])
def test_no_block_is_on_both_sides(scattered, share):
    split = split_tiles(scattered, validation_share=share, seed=0, method="location")
    assert not blocks(scattered, split.train) & blocks(scattered, split.validation)
    assert sorted(split.train + split.validation) == find_tiles(scattered)
    all_tiles, validated = class_counts(find_tiles(scattered)), class_counts(split.validation)
    for name, count in all_tiles.items():
        assert abs(validated[name] / count - share) < 0.12, name
    assert split.method == "by location in blocks of 20 km, seed 0"


def test_a_random_split_puts_blocks_on_both_sides(scattered):
    split = split_tiles(scattered, validation_share=0.2, seed=0)
    assert blocks(scattered, split.train) & blocks(scattered, split.validation)


def test_tiles_are_placed_by_their_own_crs(tmp_path):
    """The same ground in two UTM zones is one block."""
    for i in range(6):
        write_tile(tmp_path / "Field" / f"{i}.tif", PIXELS, place=(739_000, 5_320_000), crs="EPSG:32632")
        write_tile(tmp_path / "Water" / f"{i}.tif", PIXELS, place=(292_000, 5_322_000), crs="EPSG:32633")
    with pytest.raises(TrainingError, match="12 tiles lie in 1 blocks of 20 km, too few to validate on 20%"):
        split_tiles(tmp_path, validation_share=0.2, seed=0, method="location")


def test_a_class_that_lies_in_one_place_is_named(tmp_path):
    folder = make_multispectral(tmp_path, 10, size=8, bands=1)
    for i in range(3):
        write_tile(folder / "Quarry" / f"{i}.tif", PIXELS, place=(400_000 + 700 * i, 5e6))
    with pytest.raises(
        TrainingError, match=r"'Quarry' is in only one of .* from elsewhere or `split` random"
    ):
        split_tiles(folder, validation_share=0.2, seed=0, method="location")


def test_pictures_have_no_location(folder):
    with pytest.raises(TrainingError, match=r"Field_0\.png is a picture and has no georeference"):
        split_tiles(folder, validation_share=0.2, seed=0, method="location")


def test_geotiffs_without_a_crs_have_no_location(tmp_path):
    write_tile(tmp_path / "Field" / "a.tif", PIXELS, place=None)
    with pytest.raises(TrainingError, match=r"a\.tif has no georeference \(no CRS\)"):
        split_tiles(tmp_path, validation_share=0.2, seed=0, method="location")


def test_an_unreadable_tile_is_left_for_loading_to_report(tmp_path):
    folder = make_multispectral(tmp_path, 10, size=8, bands=1)
    (folder / "Field" / "Field_3.tif").write_bytes(b"broken")
    split = split_tiles(folder, validation_share=0.2, seed=0, method="location")
    assert "Field/Field_3.tif" in split.train + split.validation


@given(place, st.tuples(st.floats(-0.5, 0.5), st.floats(-0.3, 0.3)))
def test_a_block_is_never_wider_than_its_diagonal(here, step):
    there = (here[0] + step[0], here[1] + step[1])
    if block_of(*here) == block_of(*there):
        assert kilometres(here, there) < BLOCK_KM * 2**0.5 * 1.02
