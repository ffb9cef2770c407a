"""How much ground each cell of a mosaic stands for: plain geometry, no files.

Scenes end within cells, and maps that start between the cells of the others are moved onto these
(`mosaic_grid`). A cell keeps the ground that it shows in its own map, wherever it is moved, so that a class
has the hectares that it has in the maps. Ground that several scenes show is counted once.
"""

import numpy as np

from pipeline.maps.mosaic_grid import Placed

_DIGITS = 6
"""Edges of scenes are rounded to so many digits of a cell: less than a millimetre."""


def covered_ground(placed: Placed, shape: tuple[int, int]) -> np.ndarray:
    """Return how much ground belongs to each cell of a mosaic of a shape, in cells: (rows, cols) float32.

    Within a scene it is 1. It is the sum over the maps that have a cell there, each without the ground that a
    map before it shows: where maps that touch were moved onto each other, a cell may have more than 1.
    """
    share = np.zeros(shape, np.float32)
    starts = [(place.row - place.moved[1], place.col - place.moved[0]) for _, place in placed]
    sizes = [map_file.footprint[::-1] for map_file, _ in placed]
    # Of each scene: the row and the column at which its ground begins, and those at which it ends.
    begins = np.round(np.array(starts), _DIGITS)
    ends = np.round(np.array(starts) + sizes, _DIGITS)
    for i, (map_file, place) in enumerate(placed):
        overlapping = ((begins[:i] < ends[i]) & (ends[:i] > begins[i])).all(axis=1)
        own = _ground_of(
            ends[i] - begins[i],
            begins[:i][overlapping] - begins[i],
            ends[:i][overlapping] - begins[i],
            map_file.shape,
        )
        rows, cols = map_file.shape
        share[place.row : place.row + rows, place.col : place.col + cols] += own
    return share


def _ground_of(size: np.ndarray, begins: np.ndarray, ends: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the share of each cell of a map that its scene covers and no other one does, (rows, cols).

    The scene reaches `size` (rows, cols) from the map's upper left corner; the others go from `begins` to
    `ends`, both (n, 2), in cells from the same corner. The cells are cut along all edges into parts that are
    covered wholly or not at all.
    """
    limits = np.minimum(size, shape)
    begins, ends = np.clip(begins, 0, limits), np.clip(ends, 0, limits)
    edges = [
        np.unique([*range(count + 1), limits[axis], *begins[:, axis], *ends[:, axis]])
        for axis, count in enumerate(shape)
    ]
    covered = np.zeros([len(of_axis) - 1 for of_axis in edges], np.float32)
    last_row, last_col = (
        np.searchsorted(of_axis, limit) for of_axis, limit in zip(edges, limits, strict=True)
    )
    covered[:last_row, :last_col] = 1
    for begin, end in zip(begins, ends, strict=True):
        rows, cols = (np.searchsorted(edges[axis], (begin[axis], end[axis])) for axis in (0, 1))
        covered[rows[0] : rows[1], cols[0] : cols[1]] = 0
    for axis, (of_axis, count) in enumerate(zip(edges, shape, strict=True)):
        widths = np.diff(of_axis).astype(np.float32)
        covered *= widths[:, None] if axis == 0 else widths
        covered = np.add.reduceat(covered, np.searchsorted(of_axis, np.arange(count)), axis=axis)
    return covered
