"""A mosaic counts the ground that its scenes show: all of it, once."""

from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from pipeline.maps.finished import MapFile
from pipeline.maps.mosaic_coverage import covered_ground
from pipeline.maps.mosaic_grid import common_grid
from tests.support.maps import CLASSES, UTM33, make_map
from tests.support.mosaics import CELL, MODEL, at, join, put

HECTARE_TOLERANCE = 1e-3  # UTM's own: scenes here are squares of map metres


def put_scene(folder: Path, name: str, col: float, row: float, pixels: int = 100) -> None:
    """Write the map of a square scene that starts `col` and `row` pixels from another, in cells of 64."""
    size = -(-pixels // 64)
    landcover = make_map(
        np.ones((size, size), int), origin=at(col / 64, row / 64), footprint=(pixels / 64, pixels / 64)
    )
    put(folder, name, landcover)


def areas(folder: Path, suffix: str = ".tif") -> tuple[float, float]:
    """Return the hectares of the mosaic's classes, and of its polygons."""
    result = join(folder, folder.parent / f"map{suffix}", polygons="gpkg")
    polygons = geopandas.read_file(result.files["polygons"])
    assert result.areas[-1].class_name == "no data"
    return sum(area.hectares for area in result.areas[:-1]), polygons.area_ha.sum()


@pytest.mark.parametrize("suffix", [".tif", ".vrt"])
def test_scenes_that_lie_apart_have_the_area_of_both(tmp_path, suffix):
    put_scene(tmp_path / "maps", "a", 0, 0)
    put_scene(tmp_path / "maps", "b", 500, 500)
    assert areas(tmp_path / "maps", suffix) == pytest.approx((200, 200), rel=HECTARE_TOLERANCE)


def test_scenes_that_touch_have_the_area_of_all(tmp_path):
    for i in range(16):
        put_scene(tmp_path / "maps", f"s{i}", 100 * (i % 4), 100 * (i // 4))
    assert areas(tmp_path / "maps") == pytest.approx((1600, 1600), rel=HECTARE_TOLERANCE)


def test_ground_that_scenes_share_is_counted_once(tmp_path):
    put_scene(tmp_path / "maps", "a", 0, 0)
    put_scene(tmp_path / "maps", "b", 50, 0)
    assert areas(tmp_path / "maps") == pytest.approx((150, 150), rel=HECTARE_TOLERANCE)


def test_between_scenes_there_is_no_ground(tmp_path):
    put_scene(tmp_path / "maps", "a", 0, 0, pixels=64)
    put_scene(tmp_path / "maps", "b", 640, 0, pixels=64)
    result = join(tmp_path / "maps", tmp_path / "map.tif")
    assert result.areas[-1].hectares == 0


scenes = st.tuples(
    st.integers(0, 400),
    st.integers(0, 400),
    st.integers(1, 200),
    st.integers(1, 200),
)
"""Where a scene starts and its size, in pixels of which 64 are a cell."""


def map_of(col: int, row: int, width: int, height: int) -> MapFile:
    """Return the map of a scene, given in pixels of which 64 are a cell."""
    return MapFile(
        name=f"{col}-{row}",
        landcover=Path("a.tif"),
        confidence=Path("b.tif"),
        crs=UTM33,
        transform=make_map([[1]], origin=at(col / 64, row / 64)).transform,
        shape=(-(-height // 64), -(-width // 64)),
        footprint=(width / 64, height / 64),
        classes=CLASSES,
        model=tuple(MODEL.values()),
    )


@given(st.lists(scenes, min_size=1, max_size=7))
def test_the_ground_is_that_of_all_scenes_together(parts: list[tuple[int, int, int, int]]) -> None:
    maps = [map_of(*part) for part in parts]
    grid = common_grid(maps)
    placed = list(zip(maps, grid.places, strict=True))
    ground = shapely.union_all(
        [shapely.box(c / 64, r / 64, (c + w) / 64, (r + h) / 64) for c, r, w, h in parts]
    )

    share = covered_ground(placed, grid.shape)

    assert share.sum() == pytest.approx(ground.area, abs=1e-4)
    assert share.min() >= 0
    assert share.max() <= 4  # a moved cell shows ground within half a cell of its place
    cells = np.zeros(grid.shape, bool)
    for map_file, place in placed:
        rows, cols = map_file.shape
        cells[place.row : place.row + rows, place.col : place.col + cols] = True
    assert not share[~cells].any()


@given(scenes, st.integers(0, 63), st.integers(0, 63))
def test_a_moved_map_far_from_the_others_keeps_the_ground_of_each_cell(scene, right, down):
    """So that each class has the hectares in the mosaic that it has in the maps."""
    _, _, width, height = scene
    maps = [map_of(0, 0, 64, 64), map_of(64 * 20 + right, 64 * 20 + down, width, height)]
    grid = common_grid(maps)
    share = covered_ground(list(zip(maps, grid.places, strict=True)), grid.shape)

    place, (rows, cols) = grid.places[1], maps[1].shape
    inside_rows = np.clip(height / 64 - np.arange(rows), 0, 1)
    inside_cols = np.clip(width / 64 - np.arange(cols), 0, 1)
    own = share[place.row : place.row + rows, place.col : place.col + cols]
    np.testing.assert_allclose(own, np.outer(inside_rows, inside_cols), atol=1e-5)


def test_a_map_on_the_grid_keeps_its_cells(tmp_path):
    assert CELL == 640
    put_scene(tmp_path / "maps", "a", 0, 0)
    put_scene(tmp_path / "maps", "b", 1000, 0, pixels=10)  # moved by 3/8 of a cell
    result = join(tmp_path / "maps", tmp_path / "map.tif", polygons="gpkg")
    polygons = geopandas.read_file(result.files["polygons"]).sort_values("area_ha")
    assert polygons.area_ha.tolist() == pytest.approx([1, 100], rel=HECTARE_TOLERANCE)
