"""Tiles and cells cover the scene, and each other, as they should."""

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from pipeline.tiles import TileGrid


@st.composite
def grids(draw, max_size=400):
    tile = draw(st.integers(8, 80))
    return TileGrid(
        width=draw(st.integers(1, max_size)),
        height=draw(st.integers(1, max_size)),
        tile=tile,
        stride=draw(st.integers(8, tile)),
    )


@given(grids())
def test_every_pixel_lies_in_exactly_one_cell(grid):
    times_seen = np.zeros((grid.cell_rows * grid.stride, grid.cell_cols * grid.stride), int)
    for row in range(grid.cell_rows):
        for col in range(grid.cell_cols):
            top, left = row * grid.stride, col * grid.stride
            assert top < grid.height
            assert left < grid.width  # every cell has at least one pixel inside the scene
            times_seen[top : top + grid.stride, left : left + grid.stride] += 1
    assert (times_seen[: grid.height, : grid.width] == 1).all()


@given(grids())
def test_exactly_the_covering_tiles_hold_all_pixels_of_a_cell(grid):
    for cells, tiles, covering in (
        (grid.cell_rows, grid.tile_rows, grid.covering_rows),
        (grid.cell_cols, grid.tile_cols, grid.covering_cols),
    ):
        for cell in range(cells):
            first, last = cell * grid.stride, (cell + 1) * grid.stride
            holds_it = [
                t for t in range(tiles) if t * grid.stride <= first and last <= t * grid.stride + grid.tile
            ]
            assert list(covering(cell)) == holds_it
            assert holds_it


@given(grids(max_size=10**6))
def test_every_tile_is_needed_by_a_cell_of_its_own(grid):
    assert grid.covering_rows(grid.cell_rows - 1)[-1] == grid.tile_rows - 1
    assert grid.covering_cols(grid.cell_cols - 1)[-1] == grid.tile_cols - 1
    assert grid.tile_count <= grid.cell_rows * grid.cell_cols
    assert grid.pixel_rows(grid.tile_rows - 1)[0] < grid.height


@given(grids(max_size=10**6), st.integers(100_000, 900_000), st.integers(0, 10**7), st.sampled_from([10, 20]))
def test_cells_lie_on_the_scenes_own_pixel_corners_exactly(grid, east, north, pixel):
    cells = grid.transform(Affine(pixel, 0, east, 0, -pixel, north))
    for col, row in ((0, 0), (grid.cell_cols, 0), (1, grid.cell_rows)):
        corner = east + pixel * col * grid.stride, north - pixel * row * grid.stride
        assert (cells.c + cells.a * col, cells.f + cells.e * row) == corner
    assert (cells.b, cells.d) == (0, 0)
    cols, rows = grid.footprint
    scene_corner = east + pixel * grid.width, north - pixel * grid.height
    assert (cells.c + cells.a * cols, cells.f + cells.e * rows) == pytest.approx(scene_corner, abs=1e-6)


def test_stride_64_is_one_tile_a_cell():
    grid = TileGrid(10980, 10980)
    assert (grid.tile_rows, grid.tile_cols) == (grid.cell_rows, grid.cell_cols) == (172, 172)
    assert grid.footprint == (171.5625, 171.5625)


def test_half_stride_is_four_tiles_to_an_inner_cell():
    grid = TileGrid(640, 320, stride=32)
    assert (grid.cell_rows, grid.cell_cols) == (10, 20)
    assert (grid.tile_rows, grid.tile_cols) == (9, 19)
    assert list(grid.covering_rows(0)) == [0]
    assert list(grid.covering_rows(5)) == [4, 5]
    assert list(grid.covering_rows(9)) == [8]
    assert grid.pixel_rows(2, tile_rows=3) == (64, 192)


def test_a_scene_smaller_than_a_tile_has_one_tile_and_all_its_cells():
    grid = TileGrid(20, 5, stride=8)
    assert (grid.cell_rows, grid.cell_cols, grid.tile_count) == (1, 3, 1)


@pytest.mark.parametrize("stride", [0, -64, 65])
def test_tiles_cannot_step_backwards_or_leave_gaps(stride):
    with pytest.raises(ValueError, match=rf"Tiles of 64 pixels cannot step by {stride}"):
        TileGrid(100, 100, stride=stride)


def test_a_scene_without_pixels_is_refused():
    with pytest.raises(ValueError, match="0x10 pixels"):
        TileGrid(0, 10)
