"""What all kinds of tile files have in common: how one is read, and the error if it cannot be."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import TrainingError
from pipeline.training.tile_numbers import TileNumbers


class UnreadableTileError(TrainingError):
    """A tile's file exists but is not an image, or is damaged."""


@dataclass(frozen=True)
class TileReader:
    """How to read the tiles of one data set."""

    read: Callable[[Path], np.ndarray]
    """Returns a tile as a (B, H, W) array, uint8 or int16."""

    bands: tuple[str, ...] | None
    """Sentinel-2 names in channel order; None where the files do not say."""

    numbers: TileNumbers | None = None
    """What the numbers of multispectral tiles mean; None for 8-bit colours."""


@dataclass(frozen=True)
class TilesToRead:
    """A set of tiles, and what is known about its numbers already."""

    paths: tuple[Path, ...]
    """All files."""

    offset: float | None = None
    """What the user states, see `SceneOptions`; None to detect it."""

    numbers: TileNumbers | None = None
    """What was found for a set that this one belongs to; None to find it out."""
