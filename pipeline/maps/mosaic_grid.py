"""The grid of a mosaic, and where each map lies on it: plain geometry, no files.

Neighbouring scenes seldom start a whole number of cells apart (two Sentinel-2 granules lie 99,960 m or
100,020 m apart, which is 156.2 or 156.3 cells of 640 m). The mosaic's grid is therefore the one that most of
the maps are on, and every other map is moved onto it as a whole, by half a cell at most along each axis.
Maps that are on the grid keep every cell exactly.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rasterio.transform import Affine

from pipeline.errors import UsageError
from pipeline.maps.finished import MapFile

MAX_CELLS = 200_000_000
"""A mosaic is put together in memory and needs some 30 bytes a cell at its peak: 6 GB for this many, which
are a whole UTM zone from the equator to 84 degrees north at 200 m."""

ALIGNED = 1e-4
"""Origins this near to a whole number of cells from each other are on the same grid: 6 cm of 640 m."""


@dataclass(frozen=True)
class Place:
    """Where a map lies in the mosaic."""

    row: int
    """The mosaic's row in which the map's first row lies."""

    col: int
    """The mosaic's column in which the map's first column lies."""

    moved: tuple[float, float] = (0.0, 0.0)
    """How far the map was moved onto the grid, in cells to the right and down: at most half of one each."""


Placed = Sequence[tuple[MapFile, Place]]
"""Maps with their places, in the order in which they are joined."""


@dataclass(frozen=True)
class MosaicGrid:
    """The cells of a mosaic."""

    transform: Affine
    """From (column, row) of the cells to coordinates."""

    shape: tuple[int, int]
    """(rows, columns)."""

    footprint: tuple[float, float]
    """How far any scene reaches into the mosaic, in cells (columns, rows). It cuts the last column and row as
    it does in a single map; how much ground the other cells have is for `mosaic_coverage` to say."""

    places: tuple[Place, ...]
    """The place of each map, in the order of the maps."""

    def check_size(self) -> None:
        """Raise UsageError if the mosaic would not fit into memory."""
        rows, cols = self.shape
        if rows * cols > MAX_CELLS:
            raise UsageError(
                f"The mosaic would have {rows} x {cols} cells, more than {MAX_CELLS:,}: join the maps of "
                "fewer folders, or classify with a larger `stride`."
            )


def common_grid(maps: Sequence[MapFile]) -> MosaicGrid:
    """Return the grid that most of the maps are on, large enough for all; in a draw the first map's.

    The maps, at least one, have one cell size. Each goes to its nearest cell. Rounding keeps the order of
    edges, so that of two scenes that touch or overlap, neither's map ends before the other's begins.
    """
    transform = maps[0].transform
    # In cells to the right of and below the first map.
    origins = np.array([~transform @ (m.transform.c, m.transform.f) for m in maps])
    phases = np.round(origins / ALIGNED) % (1 / ALIGNED)
    most_common, _ = Counter(map(tuple, phases.tolist())).most_common(1)[0]
    anchor = phases.tolist().index(list(most_common))
    relative = origins - origins[anchor]
    cells = np.floor(relative + 0.5)
    moved = cells - relative
    moved[np.abs(moved) < ALIGNED] = 0.0
    corner = cells.min(axis=0)
    cells = (cells - corner).astype(int)
    cols, rows = (cells + [m.shape[::-1] for m in maps]).max(axis=0)
    width, height = (cells + [m.footprint for m in maps]).max(axis=0)
    return MosaicGrid(
        transform=maps[anchor].transform @ Affine.translation(*corner),
        shape=(int(rows), int(cols)),
        footprint=(float(width), float(height)),
        places=tuple(
            Place(int(row), int(col), (float(right), float(down)))
            for (col, row), (right, down) in zip(cells, moved, strict=True)
        ),
    )
