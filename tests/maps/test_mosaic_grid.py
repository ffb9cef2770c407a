"""The grid of a mosaic: no map ends before its neighbour begins, and most keep their cells."""

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.maps import mosaic_grid
from pipeline.maps.finished import MapFile
from pipeline.maps.mosaic_grid import common_grid
from tests.support.maps import CLASSES, UTM33
from tests.support.mosaics import CELL, LEFT, TOP, layouts


def map_files(layout) -> list[MapFile]:
    return [
        MapFile(
            name=str(i),
            landcover=Path(),
            confidence=Path(),
            crs=UTM33,
            transform=Affine(CELL, 0, LEFT + col * CELL, 0, -CELL, TOP - row * CELL),
            shape=(rows, cols),
            footprint=(cols - 0.25, rows - 0.5),
            classes=CLASSES,
            model=("rgb", "sha256:0"),
        )
        for i, (rows, cols, col, row, _) in enumerate(layout)
    ]


@given(layouts)
def test_every_map_has_its_nearest_place_and_the_grid_ends_with_them(layout):
    maps = map_files(layout)

    grid = common_grid(maps)

    far = []
    for m, place in zip(maps, grid.places, strict=True):
        shift = np.array(grid.transform @ (place.col, place.row)) - (m.transform.c, m.transform.f)
        assert np.abs(shift).max() <= CELL / 2 + 1e-6
        assert np.allclose(np.multiply(place.moved, (CELL, -CELL)), shift, atol=0.1)
        assert min(place.row, place.col) >= 0
        far.append((place.row + m.shape[0], place.col + m.shape[1]))
    assert grid.shape == tuple(np.max(far, axis=0))
    assert min(p.row for p in grid.places) == min(p.col for p in grid.places) == 0
    assert grid.places[0].moved == (0, 0) or len(maps) > 2
    assert grid.shape[1] - 1 < grid.footprint[0] <= grid.shape[1]


@given(layouts, st.floats(0, 1, exclude_max=True), st.integers(1, 6))
def test_maps_on_one_grid_are_not_moved_whatever_the_others_do(layout, phase, aligned):
    whole = [(rows, cols, round(col) + phase, round(row), s) for rows, cols, col, row, s in layout[:aligned]]
    maps = map_files(whole + layout[aligned:][: len(whole) - 1])

    grid = common_grid(maps)

    on_grid = [place for m, place in zip(maps, grid.places, strict=True) if m in maps[: len(whole)]]
    assert all(place.moved == (0, 0) for place in on_grid)


@given(st.integers(1, 400), st.floats(0, 1, exclude_max=True), st.floats(0, 1), st.floats(-1, 1))
def test_scenes_that_touch_still_touch_on_any_grid(cols, hanging, overlap, phase):
    """The first map, alone on its grid twice, decides; the two others touch each other."""
    width = cols - hanging  # in cells; the map of it has `cols`
    anchor, west, east = (
        (1, 1, 0.0, 0.0, 0),
        (1, cols, phase, 0.0, 0),
        (1, 3, phase + width - overlap, 0.0, 0),
    )

    _, _, west_place, east_place = common_grid(map_files([anchor, anchor, west, east])).places

    assert east_place.col <= west_place.col + cols


def test_a_mosaic_too_large_for_memory_is_refused(monkeypatch):
    grid = common_grid(map_files([(1, 1, 0.0, 0.0, 0), (1, 1, 99.0, 99.0, 0)]))
    grid.check_size()
    monkeypatch.setattr(mosaic_grid, "MAX_CELLS", 9_999)
    with pytest.raises(UsageError, match="100 x 100 cells"):
        grid.check_size()
