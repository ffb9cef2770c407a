"""How much ground each cell of a mosaic stands for: plain geometry, no files.

Scenes end within cells, and maps that start between the cells of the others are moved onto these
(`mosaic_grid`), the ground of their scenes is not. Counted is the ground that any scene shows, once, and
where it lies: two scenes that touch have the area of both, however their maps were moved.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.maps.finished import MapFile
from pipeline.maps.mosaic_grid import Place, Placed

_DIGITS = 6
"""Edges of scenes are rounded to so many digits of a cell: less than a millimetre."""


def covered_ground(placed: Placed, shape: tuple[int, int]) -> np.ndarray:
    """Return how much ground belongs to each cell of a mosaic of a shape, in cells: (rows, cols) float32.

    Within a scene it is 1. A rim of a scene may lie up to half a cell beyond the cells of its map; its ground
    is added to the cell beside it, which so has more than 1, unless another map has a cell there.
    """
    scenes = [_Scene.of(*one) for one in placed]
    # One cell more on each side, for rims beyond the mosaic.
    share = _union([scene.ground for scene in scenes], shape)
    has_cell = np.zeros(share.shape, bool)
    for scene in scenes:
        rows, cols = scene.cells
        has_cell[rows[0] : rows[1], cols[0] : cols[1]] = True
    for scene in scenes:
        (top, bottom), cols = scene.reach[0], scene.cells[1]
        _draw_in(share[top:bottom].T, has_cell[top:bottom].T, scene.reach[1], cols)
        window = np.s_[:, cols[0] : cols[1]]
        _draw_in(share[window], has_cell[window], scene.reach[0], scene.cells[0])
    return share[1:-1, 1:-1]


Span = tuple[int, int]
"""The first row or column, and the one after the last."""

Rectangle = tuple[tuple[float, float], tuple[float, float]]
"""Where something begins and ends, in rows and in columns."""


@dataclass(frozen=True)
class _Scene:
    """Where the ground of a scene and the cells of its map lie in a mosaic with a margin of one cell."""

    ground: Rectangle
    """Its ground."""

    cells: tuple[Span, Span]
    """The rows and the columns of its map."""

    @classmethod
    def of(cls, map_file: MapFile, place: Place) -> "_Scene":
        """Return those of a map in its place."""
        row, col = place.row + 1, place.col + 1
        right, down = place.moved
        width, height = map_file.footprint
        rows, cols = map_file.shape
        return cls(
            ground=(_span(row - down, height), _span(col - right, width)),
            cells=((row, row + rows), (col, col + cols)),
        )

    @property
    def reach(self) -> tuple[Span, Span]:
        """Return the rows and the columns that its ground touches."""
        rows, cols = ((int(np.floor(start)), int(np.ceil(stop))) for start, stop in self.ground)
        return rows, cols


def _span(start: float, size: float) -> tuple[float, float]:
    return round(start, _DIGITS), round(start + size, _DIGITS)


def _union(rectangles: Sequence[Rectangle], shape: tuple[int, int]) -> np.ndarray:
    """Return the share of each cell that any of the rectangles covers, of a mosaic with a margin of a cell.

    The cells are cut along all edges of the rectangles into parts that are covered wholly or not at all.
    """
    counts = [n + 2 for n in shape]
    edges = [
        np.unique([*range(count + 1), *(end for rectangle in rectangles for end in rectangle[axis])])
        for axis, count in enumerate(counts)
    ]
    covered = np.zeros([len(of_axis) - 1 for of_axis in edges], np.float32)
    for rectangle in rectangles:
        rows, cols = (np.searchsorted(of_axis, ends) for of_axis, ends in zip(edges, rectangle, strict=True))
        covered[rows[0] : rows[1], cols[0] : cols[1]] = 1
    for axis, (of_axis, count) in enumerate(zip(edges, counts, strict=True)):
        widths = np.diff(of_axis).astype(np.float32)
        covered *= widths[:, None] if axis == 0 else widths
        covered = np.add.reduceat(covered, np.searchsorted(of_axis, np.arange(count)), axis=axis)
    return covered


def _draw_in(share: np.ndarray, has_cell: np.ndarray, reach: Span, cells: Span) -> None:
    """Add the ground in rows beyond the cells of a map to its first and last row, where no map has a cell."""
    for beyond, beside, reached in (
        (cells[0] - 1, cells[0], reach[0] < cells[0]),
        (cells[1], cells[1] - 1, reach[1] > cells[1]),
    ):
        if reached:
            alone = ~has_cell[beyond]
            share[beside][alone] += share[beyond][alone]
            share[beyond][alone] = 0
