"""The map is the geometric mean of the tiles, however the scene is cut into blocks."""

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from pipeline.maps.landcover_map import MapBuilder
from pipeline.maps.rules import ArithmeticMean
from pipeline.model.card import LandCoverClass
from pipeline.tiles import TileBlock, TileGrid

CLASSES = tuple(LandCoverClass(i, name, "#000000") for i, name in ((1, "Forest"), (2, "River"), (7, "Road")))
SCENE = Affine(10, 0, 500_000, 0, -10, 5_300_000)
UTM = CRS.from_epsg(32633)


@st.composite
def predictions(draw, min_side=1):
    """A grid, probabilities of all its tiles, which tiles are there and which cells are valid."""
    tile = draw(st.integers(8, 64))
    sides = st.integers(min_side, 200)
    grid = TileGrid(draw(sides), draw(sides), tile, draw(st.integers(8, tile)))
    random = np.random.default_rng(draw(st.integers(0, 999)))
    probabilities = random.dirichlet(np.ones(len(CLASSES)), (grid.tile_rows, grid.tile_cols)).astype(
        np.float32
    )
    share = draw(st.sampled_from([0, 0.1, 0.9, 1]))
    present = random.random((grid.tile_rows, grid.tile_cols)) >= share
    valid = random.random((grid.cell_rows, grid.cell_cols)) >= share
    return grid, probabilities, present, valid


def blocks_of(grid, probabilities, present, valid, heights):
    """Cut predictions into blocks of the heights given, in turn."""
    row = 0
    while row < grid.tile_rows:
        stop = min(row + heights[row % len(heights)], grid.tile_rows)
        here = present[row:stop]
        index = row * grid.tile_cols + np.flatnonzero(here)
        cells = valid[row : None if stop == grid.tile_rows else stop]
        tiles = np.empty((len(index), 1, 0, 0), np.uint8)
        yield TileBlock(row, stop - row, index, tiles, row, cells), probabilities[row:stop][here]
        row = stop


def build(grid, blocks, **options):
    builder = MapBuilder(grid, CLASSES, **options)
    for block, probabilities in blocks:
        builder.add(block, probabilities)
    return builder.finish(UTM, SCENE)


@given(predictions(), st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(0, 100))
@settings(deadline=None)
def test_a_cell_is_the_geometric_mean_of_the_tiles_that_cover_it(prediction, heights, min_confidence):
    grid, probabilities, present, valid = prediction
    blocks = blocks_of(*prediction, heights)
    result = build(grid, blocks, min_confidence=min_confidence, keep_probabilities=True)

    for row, col in np.ndindex(grid.cell_rows, grid.cell_cols):
        covering = np.ix_(grid.covering_rows(row), grid.covering_cols(col))
        here = probabilities[covering][present[covering]].astype(np.float64)
        cell = result.class_id[row, col], result.confidence[row, col]
        if not valid[row, col] or len(here) == 0:
            assert cell == (0, 255)
            assert np.isnan(result.probabilities[:, row, col]).all()
            continue
        mean = np.exp(np.log(np.maximum(here, 1e-6)).mean(axis=0))
        mean = mean / mean.sum()
        np.testing.assert_allclose(result.probabilities[:, row, col], mean, rtol=1e-6)
        assert cell[1] == pytest.approx(100 * mean.max(), abs=0.5 + 1e-9)
        assert cell[0] == (CLASSES[mean.argmax()].id if cell[1] >= min_confidence else 0)


@given(predictions(), st.lists(st.integers(1, 5), min_size=1, max_size=3))
@settings(deadline=None, max_examples=30)
def test_the_map_does_not_depend_on_how_it_was_cut_into_blocks(prediction, heights):
    at_once = build(prediction[0], blocks_of(*prediction, [10**6]), keep_probabilities=True)
    in_blocks = build(prediction[0], blocks_of(*prediction, heights), keep_probabilities=True)
    for name in ("class_id", "confidence", "probabilities"):
        np.testing.assert_array_equal(getattr(at_once, name), getattr(in_blocks, name))


def test_the_map_has_its_place_on_the_ground():
    grid = TileGrid(100, 130, stride=32)
    everything = (
        np.ones((grid.tile_rows, grid.tile_cols), bool),
        np.ones((grid.cell_rows, grid.cell_cols), bool),
    )
    probabilities = np.full((grid.tile_rows, grid.tile_cols, 3), 1 / 3, np.float32)
    result = build(grid, blocks_of(grid, probabilities, *everything, [1]))
    assert result.class_id.shape == result.confidence.shape == (5, 4)
    assert (result.class_id.dtype, result.confidence.dtype) == (np.uint8, np.uint8)
    assert result.transform == Affine(320, 0, 500_000, 0, -320, 5_300_000)
    assert result.footprint == (100 / 32, 130 / 32)
    assert result.crs == UTM
    assert result.probabilities is None


def test_an_unsure_cell_has_no_class_but_keeps_its_confidence():
    grid = TileGrid(128, 64)
    probabilities = np.float32([[[0.59, 0.41, 0], [0.4, 0.6, 0]]])
    everything = np.ones((1, 2), bool)
    result = build(grid, blocks_of(grid, probabilities, everything, everything, [1]), min_confidence=60)
    assert result.class_id.tolist() == [[0, 2]]
    assert result.confidence.tolist() == [[59, 60]]


def test_where_tiles_do_not_overlap_a_cell_is_its_tile_exactly():
    """Even probabilities below the geometric mean's floor, and those halfway between two percent."""
    grid = TileGrid(192, 64)
    probabilities = np.float32([[[0.125, 0.875, 0], [0.7450001, 0.255, 1e-9], [1 / 3, 1 / 3, 1 / 3]]])
    everything = np.ones((1, 3), bool)
    result = build(grid, blocks_of(grid, probabilities, everything, everything, [1]), keep_probabilities=True)
    np.testing.assert_array_equal(result.probabilities, np.moveaxis(probabilities, -1, 0))
    assert result.confidence.tolist() == [[88, 75, 33]]


def test_a_sure_tile_among_doubting_ones_does_not_decide_a_cell():
    """Arithmetically the second class would win by one tile's certainty."""
    grid = TileGrid(96, 64, stride=32)
    probabilities = np.float32([[[0.6, 0.4, 0], [0, 0.05, 0.95]]])
    everything = np.ones((1, 2), bool), np.ones((2, 3), bool)
    blocks = [*blocks_of(grid, probabilities, *everything, [1])]
    assert build(grid, blocks, rule=ArithmeticMean()).class_id[0].tolist() == [1, 7, 7]
    assert build(grid, blocks).class_id[0].tolist() == [1, 2, 7]


def test_another_rule_makes_other_probabilities():
    """A rule that never trusts the model's first class."""

    class NeverForest(ArithmeticMean):
        def of_cells(self, mean):
            others = mean * [0, 1, 1]
            return others / np.maximum(others.sum(axis=-1, keepdims=True), 1e-9)

    grid = TileGrid(64, 64, stride=32)
    everything = np.ones((1, 1), bool), np.ones((2, 2), bool)
    blocks = blocks_of(grid, np.float32([[[0.5, 0.4, 0.1]]]), *everything, [1])
    result = build(grid, blocks, rule=NeverForest())
    assert (result.class_id == 2).all()
    assert (result.confidence == 80).all()


def first_block(grid):
    everything = np.ones((grid.tile_rows, grid.tile_cols), bool)
    probabilities = np.full((grid.tile_rows, grid.tile_cols, 3), 1 / 3, np.float32)
    return next(blocks_of(grid, probabilities, everything, everything, [1]))


def test_blocks_out_of_order_are_refused():
    builder = MapBuilder(TileGrid(64, 192), CLASSES)
    block, probabilities = first_block(TileGrid(64, 192))
    builder.add(block, probabilities)
    with pytest.raises(ValueError, match="starts at row 1, not 0"):
        builder.add(block, probabilities)


def test_probabilities_of_another_shape_are_refused():
    block, probabilities = first_block(TileGrid(64, 192))
    with pytest.raises(ValueError, match=r"1 tiles and 3 classes .* \(1, 2\)"):
        MapBuilder(TileGrid(64, 192), CLASSES).add(block, probabilities[:, :2])


def test_cells_of_another_grid_are_refused():
    block, probabilities = first_block(TileGrid(64, 192))
    with pytest.raises(ValueError, match="cells were expected"):
        MapBuilder(TileGrid(128, 192), CLASSES).add(block, probabilities)


def test_a_map_with_missing_rows_is_refused():
    builder = MapBuilder(TileGrid(64, 192), CLASSES)
    builder.add(*first_block(TileGrid(64, 192)))
    with pytest.raises(ValueError, match="1 of 3 rows"):
        builder.finish(UTM, SCENE)
