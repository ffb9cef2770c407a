"""Where the tiles and the map's cells lie, and blocks of tiles: plain values, no files.

A *tile* is what the network sees, a square of `tile` pixels; tiles start at the scene's upper left corner
and step by `stride`. A *cell* is one pixel of the map, a square of `stride` pixels of the scene. With
`stride == tile` they are the same squares; with a smaller stride several tiles cover a cell. At the
right and lower edge both can reach beyond the scene.
"""

from dataclasses import dataclass

import numpy as np
from affine import Affine


@dataclass(frozen=True)
class TileGrid:
    """The tiles and cells of a scene.

    Raises:
        ValueError: the stride is not within 1 to `tile`, or the scene has no pixels.
    """

    width: int
    """Of the scene, in pixels."""

    height: int
    """Of the scene, in pixels."""

    tile: int = 64
    """The side of a tile, in pixels."""

    stride: int = 64
    """From one tile to the next, and the side of a cell, in pixels."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"A scene of {self.width}x{self.height} pixels has no tiles.")
        if not 1 <= self.stride <= self.tile:
            raise ValueError(f"Tiles of {self.tile} pixels cannot step by {self.stride}.")

    @property
    def overlap(self) -> int:
        """How many cells a tile covers wholly along one axis, and at most how many tiles cover a cell."""
        return self.tile // self.stride

    @property
    def cell_rows(self) -> int:
        """Height of the map in cells."""
        return -(-self.height // self.stride)

    @property
    def cell_cols(self) -> int:
        """Width of the map in cells."""
        return -(-self.width // self.stride)

    @property
    def tile_rows(self) -> int:
        """Number of rows of tiles: as few as cover every cell wholly."""
        return max(1, self.cell_rows - self.overlap + 1)

    @property
    def tile_cols(self) -> int:
        """Number of columns of tiles."""
        return max(1, self.cell_cols - self.overlap + 1)

    @property
    def tile_count(self) -> int:
        """Number of tiles. Tile `i` is in row `i // tile_cols` and column `i % tile_cols`."""
        return self.tile_rows * self.tile_cols

    @property
    def footprint(self) -> tuple[float, float]:
        """How far the scene reaches into the map, in cells (columns, rows): not always whole ones."""
        return self.width / self.stride, self.height / self.stride

    def covering_rows(self, cell_row: int) -> range:
        """Return the rows of the tiles that hold all pixels of the cells in `cell_row`; never empty."""
        return _covering(cell_row, self.overlap, self.tile_rows)

    def covering_cols(self, cell_col: int) -> range:
        """Return the columns of the tiles that hold all pixels of the cells in `cell_col`; never empty."""
        return _covering(cell_col, self.overlap, self.tile_cols)

    def pixel_rows(self, tile_row: int, tile_rows: int = 1) -> tuple[int, int]:
        """Return the first pixel row of `tile_rows` rows of tiles, and the one after the last.

        Either may lie beyond the scene.
        """
        return tile_row * self.stride, (tile_row + tile_rows - 1) * self.stride + self.tile

    def transform(self, scene_transform: Affine) -> Affine:
        """Return the map's transform: the scene's, with pixels `stride` times as large."""
        t, s = scene_transform, self.stride
        return Affine(t.a * s, t.b * s, t.c, t.d * s, t.e * s, t.f)


@dataclass(frozen=True)
class TileBlock:
    """Consecutive rows of the tile grid, over its full width.

    Tiles without a valid cell are left out: the network does not see them.
    """

    tile_row: int
    """The first row of tiles."""

    tile_rows: int
    """How many rows of tiles."""

    index: np.ndarray
    """(k,) int64, ascending: the number of each tile, see `TileGrid.tile_count`."""

    tiles: np.ndarray
    """(k, bands, tile, tile) in the scene's dtype: their pixels. Invalid ones hold the mean of the tile's
    valid pixels, those beyond the scene a reflection."""

    cell_row: int
    """The first row of cells in `cell_valid`."""

    cell_valid: np.ndarray
    """(rows, cell_cols) bool: cells with valid data in at least half of their pixels within the scene. The
    last block has all remaining rows of the map."""


def _covering(cell: int, overlap: int, tiles: int) -> range:
    """Return the tiles, of so many along one axis, that cover a cell wholly."""
    return range(max(0, cell - overlap + 1), min(cell, tiles - 1) + 1)
