"""The rules that decide what a cell of a map shows: pure functions of arrays, each of them replaceable."""

from typing import Protocol

import numpy as np

NO_CLASS = 0
"""The class of a cell without data, or too unsure to have a class."""

NO_CONFIDENCE = 255
"""The confidence of a cell without data."""


class CellRule(Protocol):
    """Makes a cell's probabilities from those of the tiles that cover it: a step per tile, and one per cell.

    `MapBuilder` is given one. Between the two steps it takes the arithmetic mean of what the first one
    returned, over the tiles that cover the cell. A rule sees some tiles and some rows of the map at a time,
    and no neighbours: each result must follow from its own tile or cell alone, or the map would depend on
    how the scene was cut into blocks. Where tiles do not overlap, there is nothing to rule: a cell has the
    probabilities of its one tile, as they are.
    """

    def of_tiles(self, probabilities: np.ndarray) -> np.ndarray:
        """Return what is averaged over tiles, both (k, classes)."""
        ...

    def of_cells(self, mean: np.ndarray) -> np.ndarray:
        """Return the cells' probabilities, which sum up to 1, for means, both (rows, cols, classes) float64.

        Where no tile covers a cell, `mean` is all zeros and what is returned is not used.
        """
        ...


class ArithmeticMean:
    """The mean of the tiles' probabilities: one sure tile can decide a cell that the others doubt."""

    def of_tiles(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the probabilities as they are."""
        return probabilities

    def of_cells(self, mean: np.ndarray) -> np.ndarray:
        """Return the mean as it is."""
        return mean


class GeometricMean:
    """The geometric mean of the tiles' probabilities, scaled to sum up to 1: all tiles have to agree.

    It is the product of experts, each to the power of one over their number (Hinton, 2002, Neural
    Computation 14; the logarithmic opinion pool of Genest and Zidek, 1986, Statistical Science 1).
    """

    FLOOR = 1e-6
    """The least probability that a tile gives a class, so that none can forbid it."""

    def of_tiles(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the logarithms of probabilities, float64."""
        return np.log(np.maximum(probabilities, self.FLOOR, dtype=np.float64))

    def of_cells(self, mean: np.ndarray) -> np.ndarray:
        """Return probabilities for means of logarithms."""
        scaled = np.exp(np.ascontiguousarray(mean - mean.max(axis=-1, keepdims=True)))
        return scaled / scaled.sum(axis=-1, keepdims=True)


OVERLAP_RULE: CellRule = GeometricMean()
"""The rule of maps, by measurement on labelled scenes (`benchmarks/real_scenes.py`)."""


def decide(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the index of the most probable class (rows, cols), and its probability in percent, uint8.

    Of equal classes the first one is chosen.
    """
    return probabilities.argmax(axis=-1), np.rint(100 * probabilities.max(axis=-1)).astype(np.uint8)


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
