"""Where the tiles and the map's cells lie, and blocks of tiles: plain values, no files.

A *tile* is what the network sees, `tile` pixels square; tiles start at the scene's upper left corner
and step by `stride`. A *cell* is one pixel of the map, `stride` pixels of the scene square. With
`stride == tile` they are the same squares; with a smaller stride several tiles cover a cell. At the
right and lower edge both hang over.
"""

from dataclasses import dataclass

import numpy as np
from affine import Affine


@dataclass(frozen=True)
class TileGrid:
    """The tiles and cells of a scene `width` pixels wide and `height` high.

    Raises ValueError if the stride is not within 1 to `tile`, or the scene has no pixels.
    """

    width: int
    height: int
    tile: int = 64
    stride: int = 64

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"A scene of {self.width}x{self.height} pixels has no tiles.")
        if not 1 <= self.stride <= self.tile:
            raise ValueError(f"Tiles of {self.tile} pixels cannot step by {self.stride}.")

    @property
    def overlap(self) -> int:
        """Cells that a tile covers wholly along one axis; so many tiles, at most, cover a cell along it."""
        return self.tile // self.stride

    @property
    def cell_rows(self) -> int:
        """Height of the map."""
        return -(-self.height // self.stride)

    @property
    def cell_cols(self) -> int:
        """Width of the map."""
        return -(-self.width // self.stride)

    @property
    def tile_rows(self) -> int:
        """Rows of tiles: as few as cover every cell wholly."""
        return max(1, self.cell_rows - self.overlap + 1)

    @property
    def tile_cols(self) -> int:
        """Columns of tiles."""
        return max(1, self.cell_cols - self.overlap + 1)

    @property
    def tile_count(self) -> int:
        """Number of tiles. Tile `i` stands in row `i // tile_cols`, column `i % tile_cols`."""
        return self.tile_rows * self.tile_cols

    @property
    def footprint(self) -> tuple[float, float]:
        """How far the scene reaches into the map, in cells: (columns, rows), fractional at hanging cells."""
        return self.width / self.stride, self.height / self.stride

    def covering_rows(self, cell_row: int) -> range:
        """Rows of the tiles that hold all pixels of the cells in `cell_row`; never empty."""
        return _covering(cell_row, self.overlap, self.tile_rows)

    def covering_cols(self, cell_col: int) -> range:
        """Columns of the tiles that hold all pixels of the cells in `cell_col`; never empty."""
        return _covering(cell_col, self.overlap, self.tile_cols)

    def pixel_rows(self, tile_row: int, tile_rows: int = 1) -> tuple[int, int]:
        """First pixel row of `tile_rows` rows of tiles and the one after the last, maybe beyond the scene."""
        return tile_row * self.stride, (tile_row + tile_rows - 1) * self.stride + self.tile

    def transform(self, scene_transform: Affine) -> Affine:
        """Return the map's transform: the scene's, with pixels `stride` times as large."""
        t, s = scene_transform, self.stride
        return Affine(t.a * s, t.b * s, t.c, t.d * s, t.e * s, t.f)


@dataclass(frozen=True)
class TileBlock:
    """Consecutive rows of the tile grid, over its full width.

    `index` (k,) int64: place of each tile that needs the network, counted row by row over the whole
    grid, ascending. `tiles` (k, bands, tile, tile) in the scene's dtype: their pixels; invalid ones hold
    the mean of the tile's valid pixels, those beyond the scene a reflection. Tiles with no valid cell
    are left out of both. `cell_valid` (rows, cell_cols) bool: the cells from row `cell_row` on of which
    at least half the pixels within the scene are valid; the last block has the map's remaining rows.
    """

    tile_row: int
    tile_rows: int
    index: np.ndarray
    tiles: np.ndarray
    cell_row: int
    cell_valid: np.ndarray


def _covering(cell: int, overlap: int, tiles: int) -> range:
    return range(max(0, cell - overlap + 1), min(cell, tiles - 1) + 1)
