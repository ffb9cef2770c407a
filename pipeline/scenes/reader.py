"""A scene's pixels as tiles: strips are read ahead on threads and cut into blocks of tiles, in order.

Strips span the scene's full width and follow the blocks of its file, so that each of those is decoded once
(where tiles overlap, a strip also reads the first rows of the next one). Tiles are cut from them by array
views.
"""

import math
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from itertools import cycle, pairwise

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from pipeline.scenes.scene import Scene, SceneReader
from pipeline.tiles import TileBlock, TileGrid

BLOCK_BYTES = 64 * 2**20
# A row of 1,024-pixel JPEG 2000 blocks across a Sentinel-2 product, thirteen bands of uint16, is 279 MiB.
# It must be read in one piece, since no other blocks are as slow to decode.
STRIP_BYTES = 320 * 2**20


def read_blocks(
    scene: Scene,
    grid: TileGrid,
    *,
    first_row: int = 0,
    threads: int = 2,
    block_bytes: int = BLOCK_BYTES,
    strip_bytes: int = STRIP_BYTES,
) -> Generator[TileBlock]:
    """Yield the scene's tiles, block after block, from row `first_row` of the tile grid on.

    At most `threads` strips are being read or wait to be used; each thread has a handle of its own. A block's
    tiles stay below `block_bytes` and a strip's pixels below `strip_bytes`, unless a single row of tiles is
    larger. Raises SceneError as soon as a strip turns out to be unreadable. Closing the generator ends the
    threads, which close their handles.
    """
    strips = deque(_strips(scene, grid, first_row, strip_bytes))
    reading: deque[Future[Iterator[TileBlock]]] = deque()
    with ExitStack() as stack:
        count = min(threads, len(strips))
        workers = [stack.enter_context(_worker(scene, grid, block_bytes)) for _ in range(count)]
        for worker in workers:
            reading.append(worker(strips.popleft()))
        for worker in cycle(workers):
            if not reading:
                return
            failed = (future for future in reading if future.done() and future.exception())
            blocks = next(failed, reading[0]).result()
            reading.popleft()
            if strips:
                reading.append(worker(strips.popleft()))
            yield from blocks


@contextmanager
def _worker(
    scene: Scene, grid: TileGrid, block_bytes: int
) -> Iterator[Callable[[range], Future[Iterator[TileBlock]]]]:
    """Start a thread that opens a handle on the scene, reads strips with it and finally closes it.

    It runs in the context it is started from, so that its log messages carry the scene's name.
    """
    handle, context = ExitStack(), copy_context()
    with ThreadPoolExecutor(1, thread_name_prefix="read") as thread:
        reader = thread.submit(context.run, lambda: handle.enter_context(scene.open()))

        def read(rows: range) -> Iterator[TileBlock]:
            return _prepare(_read_strip(reader.result(), grid, rows), block_bytes)

        try:
            yield lambda rows: thread.submit(context.run, read, rows)
        finally:
            thread.submit(context.run, handle.close)


@dataclass(frozen=True)
class _Strip:
    """Pixels of some rows of tiles, padded so that each tile is whole."""

    grid: TileGrid
    rows: range  # of the tile grid
    pixels: np.ndarray  # (bands, height, width), from the first pixel row of the first tile row
    valid: np.ndarray  # (height, width) bool
    cell_valid: np.ndarray  # (cell rows from rows.start on, cell_cols) bool: all cells that the tiles cover


def _strips(scene: Scene, grid: TileGrid, first_row: int, strip_bytes: int) -> list[range]:
    """Cut the rows of tiles into strips that start where the file's blocks do, if memory allows."""
    row_bytes = grid.stride * scene.width * len(scene.bands) * scene.dtype.itemsize
    rows = math.lcm(grid.stride, scene.block_height) // grid.stride
    if rows * row_bytes > strip_bytes:
        rows = max(1, strip_bytes // row_bytes)
    bounds = [first_row, *range(first_row - first_row % rows + rows, grid.tile_rows, rows), grid.tile_rows]
    return [range(start, stop) for start, stop in pairwise(bounds) if start < stop]


def _read_strip(reader: SceneReader, grid: TileGrid, rows: range) -> _Strip:
    top, bottom = grid.pixel_rows(rows.start, len(rows))
    right = (grid.tile_cols - 1) * grid.stride + grid.tile
    below, beside = max(0, bottom - grid.height), right - grid.width
    # The rows that are reflected below the scene may lie above this strip. Without them, the result would
    # depend on how the scene was cut into strips.
    start = max(0, min(top, grid.height - 1 - below))
    pixels, valid = reader.read(start, 0, min(bottom, grid.height) - start, grid.width)
    covered = (len(rows) + grid.overlap - 1) * grid.stride
    cell_valid = _valid_cells(valid[top - start :][:covered], grid)
    if below or beside:
        pixels = np.pad(pixels, ((0, 0), (0, below), (0, beside)), mode="reflect")
        valid = np.pad(valid, ((0, below), (0, beside)), mode="reflect")
    return _Strip(grid, rows, pixels[:, top - start :], valid[top - start :], cell_valid)


def _valid_cells(valid: np.ndarray, grid: TileGrid) -> np.ndarray:
    """Return which cells have at least half of their pixels valid; only pixels inside the scene count."""
    height, width = valid.shape
    rows, cols = np.arange(0, height, grid.stride), np.arange(0, width, grid.stride)
    if valid.all():
        return np.ones((len(rows), len(cols)), bool)
    count = np.add.reduceat(valid, cols, axis=1, dtype=np.int32)
    count = np.add.reduceat(count, rows, axis=0)
    inside = np.outer(np.diff(rows, append=height), np.diff(cols, append=width))
    return np.greater_equal(2 * count, inside)


def _prepare(strip: _Strip, block_bytes: int) -> Iterator[TileBlock]:
    """Cut the strip into blocks: right away if it makes a single one, else one by one on demand."""
    grid = strip.grid
    row_bytes = grid.tile_cols * len(strip.pixels) * grid.tile**2 * strip.pixels.itemsize
    step = max(1, block_bytes // row_bytes)
    starts = range(strip.rows.start, strip.rows.stop, step)
    blocks = (_cut(strip, range(start, min(start + step, strip.rows.stop))) for start in starts)
    return blocks if len(starts) > 1 else iter(list(blocks))


def _cut(strip: _Strip, rows: range) -> TileBlock:
    grid = strip.grid
    last = rows.stop == grid.tile_rows
    first_cell = rows.start - strip.rows.start
    cell_valid = strip.cell_valid[first_cell : None if last else first_cell + len(rows)]
    seen = strip.cell_valid[first_cell : first_cell + len(rows) + grid.overlap - 1]
    needed = _any_in_windows(seen, grid.overlap)

    top = first_cell * grid.stride
    window = slice(top, top + (len(rows) - 1) * grid.stride + grid.tile)
    pixels, valid = _windows(strip.pixels[:, window], grid), _windows(strip.valid[window], grid)
    tiles = np.moveaxis(pixels, 0, 2)[needed]
    if not strip.valid.all():
        _fill_invalid(tiles, valid[needed])
    index = rows.start * grid.tile_cols + np.flatnonzero(needed)
    return TileBlock(rows.start, len(rows), index, tiles, rows.start, cell_valid)


def _windows(array: np.ndarray, grid: TileGrid) -> np.ndarray:
    """View (..., height, width) as tiles: (..., rows, cols, tile, tile), without a copy."""
    views = sliding_window_view(array, (grid.tile, grid.tile), axis=(-2, -1))
    return views[..., :: grid.stride, :: grid.stride, :, :]


def _any_in_windows(cells: np.ndarray, size: int) -> np.ndarray:
    """Return whether any cell is True in each `size` x `size` window; fewer cells make one window."""
    shape = min(size, cells.shape[0]), min(size, cells.shape[1])
    return np.logical_or.reduce(sliding_window_view(cells, shape), axis=(-2, -1))


def _fill_invalid(tiles: np.ndarray, valid: np.ndarray) -> None:
    """Set invalid pixels of `tiles` (k, bands, tile, tile) to the mean of their tile's valid ones, in place.

    `valid` is (k, tile, tile); each tile has at least one valid pixel.
    """
    partly = np.flatnonzero(~valid.all(axis=(-2, -1)))
    some, where = tiles[partly], valid[partly, None]
    mean = some.mean(axis=(-2, -1), where=where, dtype=np.float64, keepdims=True)
    if tiles.dtype.kind in "iu":
        mean = mean.round()
    tiles[partly] = np.where(where, some, mean.astype(tiles.dtype))
