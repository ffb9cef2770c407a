"""The rules that decide what a cell of a map shows: pure functions of arrays, each of them replaceable."""

from typing import Protocol

import numpy as np

NO_CLASS = 0
"""The class of a cell without data, or too unsure to have a class."""

NO_CONFIDENCE = 255
"""The confidence of a cell without data."""


class CellRule(Protocol):
    """Decides a cell's class and confidence from the mean probabilities of the tiles that cover it.

    `MapBuilder` is given one. A rule sees some rows of the map at a time, and no cell's neighbours: it must
    decide each cell by its own probabilities alone, or the map would depend on how the scene was cut into
    blocks. The mean is an arithmetic one in which all tiles that cover the cell weigh the same. A rule that
    averages otherwise belongs where `MapBuilder.add` fills in the tiles, whose sums become the mean: with
    logarithms of probabilities there the mean is a geometric one; with a tile's weight in place of the 1 that
    counts it, and its probabilities times that weight, a weighted one.
    """

    def __call__(self, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the index of each cell's class, integer, and the confidence, uint8 0 to 100 percent.

        `mean` (rows, cols, classes) float64 sums up to 1 over the classes. Where it is all zeros no tile
        covers the cell: what a rule returns there is not used. Both results are (rows, cols).
        """
        ...


def decide(mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Choose the class with the highest mean probability, which in percent is the confidence; a `CellRule`.

    Of equal classes the first one is chosen.
    """
    return mean.argmax(axis=-1), np.rint(100 * mean.max(axis=-1)).astype(np.uint8)


def surer(
    class_id: np.ndarray, confidence: np.ndarray, other_class_id: np.ndarray, other_confidence: np.ndarray
) -> np.ndarray:
    """Tell for each cell whether one map is surer of it than another; a mosaic shows the surest map's class.

    Any class beats a cell that is too unsure to have one, which beats no data. A draw is not surer. All
    arrays are (rows, cols) uint8, the result is bool.
    """
    return _rank(class_id, confidence) > _rank(other_class_id, other_confidence)


def _rank(class_id: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Return how cells rank: 0 for no data, 1-101 for one too unsure for a class, 257-357 for a class."""
    sureness = np.where(confidence == NO_CONFIDENCE, 0, confidence.astype(np.uint16) + 1)
    return np.where(class_id != NO_CLASS, sureness + 256, sureness)
