"""What all kinds of tile files have in common: how one is read, and the error if it cannot be."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import TrainingError


class UnreadableTileError(TrainingError):
    """A tile's file exists but is not an image, or is damaged."""


@dataclass(frozen=True)
class TileReader:
    """How to read the tiles of one data set."""

    read: Callable[[Path], np.ndarray]
    """Returns a tile as a (B, H, W) array, uint8 or int16."""

    bands: tuple[str, ...] | None
    """Sentinel-2 names in channel order; None where the files do not say."""
