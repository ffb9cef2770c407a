import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import SceneError
from pipeline.scenes.reader import BLOCK_BYTES, read_blocks
from pipeline.tiles import TileGrid


@dataclass
class ArrayScene:
    """A scene that is two arrays, and remembers how it was read."""

    pixels: np.ndarray
    valid: np.ndarray = None
    block_height: int = 1
    broken_from_row: int = 10**9
    reads: list = field(default_factory=list)
    opened: int = 0
    closed: int = 0

    def __post_init__(self):
        if self.valid is None:
            self.valid = np.ones(self.pixels.shape[1:], bool)
        self.bands = tuple(f"B{i}" for i in range(len(self.pixels)))
        self.dtype = self.pixels.dtype
        self.height, self.width = self.valid.shape

    @contextmanager
    def open(self):
        self.opened += 1
        thread = threading.get_ident()
        try:
            yield ArrayReader(self, thread)
        finally:
            assert threading.get_ident() == thread
            self.closed += 1


@dataclass
class ArrayReader:
    scene: ArrayScene
    thread: int

    def read(self, row, col, height, width):
        scene = self.scene
        assert threading.get_ident() == self.thread, "handles belong to the thread that opened them"
        assert 0 <= row < row + height <= scene.height
        assert 0 <= col < col + width <= scene.width
        scene.reads.append((row, height))
        if row + height > scene.broken_from_row:
            raise SceneError("The scene is corrupt.")
        window = slice(row, row + height), slice(col, col + width)
        return scene.pixels[:, *window].copy(), scene.valid[window].copy()


def count_up(bands, height, width, dtype=np.uint16):
    """Pixels that are all different, as far as the type goes."""
    return np.arange(bands * height * width).reshape(bands, height, width).astype(dtype)


def cut_by_hand(scene, grid):
    """Tiles, their need and the valid cells, one by one and straight from the definitions."""
    pad = ((0, 2 * grid.tile), (0, 2 * grid.tile))
    pixels = np.pad(scene.pixels, ((0, 0), *pad), mode="reflect")
    valid = np.pad(scene.valid, pad, mode="reflect")
    cells = np.zeros((grid.cell_rows, grid.cell_cols), bool)
    for row in range(grid.cell_rows):
        for col in range(grid.cell_cols):
            s = grid.stride
            cells[row, col] = scene.valid[row * s : row * s + s, col * s : col * s + s].mean() >= 0.5
    tiles = {}
    for row in range(grid.tile_rows):
        for col in range(grid.tile_cols):
            if cells[row : row + grid.overlap, col : col + grid.overlap].any():
                top, left = row * grid.stride, col * grid.stride
                window = slice(top, top + grid.tile), slice(left, left + grid.tile)
                tile, ok = pixels[:, *window].copy(), valid[window]
                for band in tile:
                    mean = band[ok].mean(dtype=np.float64)
                    band[~ok] = mean if band.dtype.kind == "f" else mean.round()
                tiles[row * grid.tile_cols + col] = tile
    return tiles, cells


@st.composite
def scenes_and_grids(draw):
    tile = draw(st.integers(8, 32))
    grid = TileGrid(draw(st.integers(1, 130)), draw(st.integers(1, 130)), tile, draw(st.integers(8, tile)))
    shape = grid.height, grid.width
    random = np.random.default_rng(draw(st.integers(0, 99)))
    invalid_share = draw(st.sampled_from([0, 0, 0.01, 0.5, 1]))
    valid = random.random(shape) >= invalid_share
    if draw(st.booleans()):  # a border of no data, as at the edge of an orbit
        valid &= np.add.outer(np.arange(shape[0]), np.arange(shape[1])) > draw(st.integers(0, 200))
    dtype = draw(st.sampled_from([np.uint8, np.uint16, np.int16, np.float32]))
    scene = ArrayScene(
        count_up(2, *shape, dtype), valid, block_height=draw(st.sampled_from([1, 10, 64, 512]))
    )
    if dtype == np.float32:
        scene.pixels[:, ~valid] = np.nan
    return scene, grid


limits = st.sampled_from([1, 5_000, 20_000, 100_000, BLOCK_BYTES])


@given(scenes_and_grids(), st.integers(1, 3), limits, limits)
@settings(deadline=None)
def test_blocks_hold_the_tiles_and_cells_of_the_definition(scene_and_grid, threads, block_bytes, strip_bytes):
    scene, grid = scene_and_grid
    tiles, cells = cut_by_hand(scene, grid)
    blocks = list(read_blocks(scene, grid, threads=threads, block_bytes=block_bytes, strip_bytes=strip_bytes))

    assert np.concatenate([block.index for block in blocks]).tolist() == list(tiles)
    assert np.array_equal(np.concatenate([block.cell_valid for block in blocks]), cells)
    for block in blocks:
        assert block.tiles.dtype == scene.dtype
        assert block.tiles.shape == (len(block.index), 2, grid.tile, grid.tile)
        for index, tile in zip(block.index, block.tiles, strict=True):
            np.testing.assert_allclose(tile, tiles[index], rtol=1e-6, atol=0)
    assert scene.opened == scene.closed <= threads


@given(scenes_and_grids(), limits)
@settings(deadline=None, max_examples=30)
def test_blocks_follow_one_another_and_are_bounded(scene_and_grid, block_bytes):
    scene, grid = scene_and_grid
    next_row = 0
    for block in read_blocks(scene, grid, block_bytes=block_bytes):
        assert (block.tile_row, block.cell_row) == (next_row, next_row)
        next_row += block.tile_rows
        last = next_row == grid.tile_rows
        assert len(block.cell_valid) == (grid.cell_rows - block.cell_row if last else block.tile_rows)
        assert block.tile_rows == 1 or block.tiles.nbytes <= block_bytes
    assert next_row == grid.tile_rows


def test_strips_start_where_the_files_blocks_do():
    scene = ArrayScene(count_up(3, 600, 70), block_height=128)
    list(read_blocks(scene, TileGrid(70, 600), threads=1))
    assert scene.reads == [(0, 128), (128, 128), (256, 128), (384, 128), (512, 88)]


def test_overlapping_tiles_reread_only_what_overlaps():
    scene = ArrayScene(count_up(1, 512, 64), block_height=128)
    list(read_blocks(scene, TileGrid(64, 512, stride=32), threads=1))
    assert scene.reads == [(0, 160), (128, 160), (256, 160), (384, 128)]


def test_a_wide_scene_is_read_a_row_of_tiles_at_a_time():
    scene = ArrayScene(np.zeros((3, 256, 100_000), np.uint8), block_height=256)
    grid = TileGrid(100_000, 256)
    blocks = list(read_blocks(scene, grid, strip_bytes=30 * 2**20))
    assert [block.tile_rows for block in blocks] == [1, 1, 1, 1]
    assert max(height for _, height in scene.reads) == 64


def test_all_nodata_costs_no_tiles():
    scene = ArrayScene(count_up(3, 200, 200), np.zeros((200, 200), bool))
    blocks = list(read_blocks(scene, TileGrid(200, 200)))
    assert sum(len(block.index) for block in blocks) == 0
    assert not any(block.cell_valid.any() for block in blocks)


def test_a_cell_needs_half_of_its_pixels_within_the_scene():
    valid = np.zeros((64, 72), bool)
    valid[:32, :64] = True  # exactly half of the first cell
    valid[:31, 64:] = True  # a little less than half of the 8 columns that the second has
    (block,) = read_blocks(ArrayScene(count_up(1, 64, 72), valid), TileGrid(72, 64))
    assert block.cell_valid.tolist() == [[True, False]]
    assert block.index.tolist() == [0]


def test_invalid_pixels_take_the_mean_of_their_own_tile_and_band():
    pixels = np.full((2, 64, 128), 100, np.int16)
    pixels[1, :, 64:] = 300
    valid = np.ones((64, 128), bool)
    valid[5:9, 70:90] = False
    pixels[:, ~valid] = -9999
    (block,) = read_blocks(ArrayScene(pixels, valid), TileGrid(128, 64))
    assert [np.unique(band).tolist() for tile in block.tiles for band in tile] == [[100], [100], [100], [300]]


def test_a_corrupt_strip_ends_the_reading_at_once_and_closes_everything():
    scene = ArrayScene(count_up(1, 640, 64), broken_from_row=128)
    blocks = read_blocks(scene, TileGrid(64, 640), threads=2)
    with pytest.raises(SceneError, match="corrupt"):
        list(blocks)
    assert scene.opened == scene.closed == 2
    assert len(scene.reads) <= 4  # of ten strips


def test_a_scene_that_cannot_be_opened_says_so():
    class Vanished(ArrayScene):
        @contextmanager
        def open(self):
            raise SceneError("The file is gone.")
            yield

    with pytest.raises(SceneError, match="gone"):
        list(read_blocks(Vanished(count_up(1, 640, 64)), TileGrid(64, 640)))


def test_a_reader_left_early_reads_little_ahead_and_closes_everything():
    scene = ArrayScene(count_up(1, 6400, 64))
    blocks = read_blocks(scene, TileGrid(64, 6400), threads=2)
    next(blocks)
    time.sleep(0.05)
    assert len(scene.reads) <= 3  # one in hand, two ahead
    blocks.close()
    assert scene.opened == scene.closed == 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read")]
