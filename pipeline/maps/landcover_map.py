"""The land-cover map in memory, and how it is built from the probabilities of tiles. No files.

The map grows block by block. Besides the map itself only the last few rows of tiles are kept: those
that reach into cells still to come.
"""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from rasterio.crs import CRS
from rasterio.transform import Affine

from pipeline.maps.rules import NO_CLASS, NO_CONFIDENCE, OVERLAP_RULE, ArithmeticMean, CellRule, decide
from pipeline.model.card import LandCoverClass
from pipeline.tiles import TileBlock, TileGrid


@dataclass(frozen=True)
class LandcoverMap:
    """A land-cover map, one value a cell."""

    class_id: np.ndarray
    """(rows, cols) uint8: the class, `NO_CLASS` = no data."""

    confidence: np.ndarray
    """(rows, cols) uint8: probability of the chosen class in percent, `NO_CONFIDENCE` = no data."""

    probabilities: np.ndarray | None
    """(classes, rows, cols) float32, NaN = no data; None unless they were asked for."""

    classes: tuple[LandCoverClass, ...]
    """The classes that the map can have, in the order of the model's outputs."""

    crs: CRS | None
    """The coordinate system; None in pixel space."""

    transform: Affine
    """From (column, row) of the cells to coordinates."""

    footprint: tuple[float, float]
    """How far the scene reaches into the map, in cells (columns, rows): what lies beyond it is padding."""

    coverage: np.ndarray | None = None
    """(rows, cols) float32: how much ground that a scene shows belongs to each cell, in cells. None where the
    footprint says it all, as in the map of a single scene."""

    @property
    def covered(self) -> np.ndarray:
        """Return how much ground that a scene shows belongs to each cell, (rows, cols), in cells."""
        if self.coverage is not None:
            return self.coverage
        inside_cols, inside_rows = (
            np.clip(reach - np.arange(count), 0.0, 1.0)
            for reach, count in zip(self.footprint, self.class_id.shape[::-1], strict=True)
        )
        return np.outer(inside_rows, inside_cols)


class MapBuilder:
    """Builds the map from blocks of tiles, which come in order from the top.

    `rule` makes a cell's probabilities from those of the tiles that cover it, if tiles overlap. Where the
    model is less than `min_confidence` percent sure, a cell gets class 0 but keeps its confidence.
    """

    def __init__(
        self,
        grid: TileGrid,
        classes: tuple[LandCoverClass, ...],
        *,
        min_confidence: int = 0,
        keep_probabilities: bool = False,
        rule: CellRule = OVERLAP_RULE,
    ) -> None:
        shape = grid.cell_rows, grid.cell_cols
        self._grid = grid
        self._classes = classes
        self._ids = np.array([c.id for c in classes], np.uint8)
        self._min_confidence = min_confidence
        # One tile a cell: its probabilities, exactly, which no way through logarithms would leave.
        self._rule = rule if grid.overlap > 1 else ArithmeticMean()
        self._class_id = np.full(shape, NO_CLASS, np.uint8)
        self._confidence = np.full(shape, NO_CONFIDENCE, np.uint8)
        self._probabilities = (
            np.full((len(classes), *shape), np.nan, np.float32) if keep_probabilities else None
        )
        self._next_row = 0
        # Tile rows above the next block, already summed over the tile columns that cover a cell: a sum
        # per class of what the rule averages and, last, the number of tiles in it.
        self._above = np.zeros((grid.overlap - 1, grid.cell_cols, len(classes) + 1))

    def add(self, block: TileBlock, probabilities: np.ndarray) -> None:
        """Add the next block; `probabilities` (k, classes) belong to `block.index`.

        Raises:
            ValueError: the block is not the next one, or its parts do not fit one another.
        """
        self._check(block, probabilities)
        grid, rows = self._grid, len(block.cell_valid)
        tiles = np.zeros((block.tile_rows, grid.tile_cols, len(self._classes) + 1))
        places = np.divmod(block.index - block.tile_row * grid.tile_cols, grid.tile_cols)
        tiles[*places, :-1] = self._rule.of_tiles(probabilities)
        tiles[*places, -1] = 1

        margin = grid.overlap - 1
        tiles = np.pad(tiles, ((0, 0), (margin, margin), (0, 0)))
        by_column = np.concatenate(
            [self._above, _sum_windows(tiles, grid.overlap, axis=1)[:, : grid.cell_cols]]
        )
        self._above = by_column[len(by_column) - margin :]
        if block.tile_row + block.tile_rows == grid.tile_rows:
            by_column = np.pad(by_column, ((0, margin), (0, 0), (0, 0)))
        self._write(block.cell_row, _sum_windows(by_column, grid.overlap, axis=0)[:rows], block.cell_valid)
        self._next_row += block.tile_rows

    def finish(self, crs: CRS | None, transform: Affine) -> LandcoverMap:
        """Return the map; `crs` and `transform` are the scene's.

        Raises:
            ValueError: blocks are missing.
        """
        if self._next_row != self._grid.tile_rows:
            raise ValueError(f"{self._next_row} of {self._grid.tile_rows} rows of tiles were added.")
        return LandcoverMap(
            self._class_id,
            self._confidence,
            self._probabilities,
            self._classes,
            crs,
            self._grid.transform(transform),
            self._grid.footprint,
        )

    def _write(self, row: int, sums: np.ndarray, valid: np.ndarray) -> None:
        """Fill in the rows of the map from `row` on; `sums` is (rows, cols, classes + 1)."""
        count = sums[..., -1]
        probabilities = self._rule.of_cells(sums[..., :-1] / np.maximum(count, 1)[..., None])
        best, percent = decide(probabilities)
        valid = valid & (count > 0)
        window = slice(row, row + len(sums))
        self._confidence[window][valid] = percent[valid]
        valid_and_sure = valid & (percent >= self._min_confidence)
        self._class_id[window][valid_and_sure] = self._ids[best[valid_and_sure]]
        if self._probabilities is not None:
            self._probabilities[:, window][:, valid] = probabilities[valid].T

    def _check(self, block: TileBlock, probabilities: np.ndarray) -> None:
        grid = self._grid
        if not block.tile_row == block.cell_row == self._next_row:
            raise ValueError(f"The next block starts at row {self._next_row}, not {block.tile_row}.")
        if block.tile_row + block.tile_rows > grid.tile_rows:
            raise ValueError(f"Only {grid.tile_rows} rows of tiles fit the grid.")
        if probabilities.shape != (len(block.index), len(self._classes)):
            raise ValueError(
                f"{len(block.index)} tiles and {len(self._classes)} classes "
                f"do not make probabilities of shape {probabilities.shape}."
            )
        last = block.tile_row + block.tile_rows == grid.tile_rows
        rows = grid.cell_rows - block.cell_row if last else block.tile_rows
        if block.cell_valid.shape != (rows, grid.cell_cols):
            raise ValueError(f"{(rows, grid.cell_cols)} cells were expected, not {block.cell_valid.shape}.")


def _sum_windows(array: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Return the sum of each `size` successive entries along an axis, which gets shorter by `size - 1`."""
    return sliding_window_view(array, size, axis=axis).sum(axis=-1)
