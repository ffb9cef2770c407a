"""What the numbers in multispectral tiles mean: found once for a whole set of them, as for a scene.

Pure arrays.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import SceneError, TrainingError
from pipeline.notes import log_note, warning
from pipeline.scenes.calibration import TEN_THOUSANDTHS, Evidence, Stated, calibrate, looks_like_8_bit
from pipeline.scenes.plausibility import Calibration, fault_of
from pipeline.scenes.stored_values import Numbers, StoredValues, checked_tags
from pipeline.values import DIGITAL_NUMBERS

log = logging.getLogger(__name__)

DIGITAL_NUMBER_LIMIT = 32_767
"""The largest int16: reflectance 3.3, which only glint and broken pixels exceed."""


@dataclass(frozen=True)
class StoredTile:
    """A tile as its file holds it."""

    pixels: np.ndarray
    """(B, T, T) of the file's type."""

    valid: np.ndarray | None
    """(T, T) bool; None where all pixels are valid."""

    scales: Numbers
    """GDAL's scale of each band."""

    offsets: Numbers
    """GDAL's offset of each band."""

    def filled(self) -> np.ndarray:
        """Return the pixels (B, T, T), invalid ones as the mean of the tile's valid ones, as in a scene."""
        if self.valid is None:
            return self.pixels
        mean = self.pixels.mean(axis=(1, 2), where=self.valid, dtype=np.float64, keepdims=True)
        return np.where(self.valid, self.pixels, mean.round().astype(self.pixels.dtype))


@dataclass(frozen=True)
class TileNumbers:
    """How the numbers of a set of tiles become ten-thousandths of reflectance."""

    scales: Numbers
    """GDAL's scale of each band, which all of the tiles have."""

    offsets: Numbers
    """GDAL's offset of each band, which all of the tiles have."""

    calibration: Calibration
    """What to make of them."""

    def digital_numbers(self, tile: StoredTile, name: str) -> np.ndarray:
        """Return a tile's reflectance in ten-thousandths, int16 (B, T, T).

        Raises:
            TrainingError: the tile, called `name`, is tagged differently from the others.
        """
        if len(tile.pixels) != len(self.scales):
            return tile.pixels.astype(np.int16)  # `load_tiles` compares the tiles and refuses it
        ours, theirs = (self.scales, self.offsets), (tile.scales, tile.offsets)
        if not np.array_equal(ours, theirs, equal_nan=True):
            raise TrainingError(
                f"{name} has other scale and offset tags ({theirs[0][0]:g} and {theirs[1][0]:g} in the first "
                f"band) than the first tile ({ours[0][0]:g} and {ours[1][0]:g}): all must have the same."
            )
        pixels = tile.filled()
        if set(self.calibration.scales) != {TEN_THOUSANDTHS} or any(self.calibration.offsets):
            values = self.calibration.apply(np.moveaxis(pixels, 0, -1)) * DIGITAL_NUMBERS
            pixels = np.rint(np.moveaxis(values, -1, 0))
        return np.clip(pixels, 0, DIGITAL_NUMBER_LIMIT).astype(np.int16)


def find_numbers(
    tiles: Sequence[StoredTile], bands: Sequence[str] | None, names: Sequence[str], offset: float | None
) -> TileNumbers:
    """Find out what the numbers of a set mean by some of its tiles, their tags and file names.

    `offset` is what the user states, see `SceneOptions`. What is guessed is logged as a warning.

    Raises:
        TrainingError: the tags make no sense, or the numbers are not reflectance.
    """
    first, count = tiles[0], len(tiles[0].pixels)
    bands = tuple(bands or (f"band {i + 1}" for i in range(count)))
    try:
        scales, offsets, notes = checked_tags("The first tile", bands, first.scales, first.offsets)
        stored = StoredValues(first.pixels.dtype, scales, offsets, lambda: _sample(tiles))
        evidence = Evidence("The tiles", bands, stored, tuple(names))
        calibration, found = calibrate(evidence, None, Stated(None, offset))
    except SceneError as error:
        raise TrainingError(str(error)) from error
    for note in (*notes, *found):
        log_note(log, "tiles", note)
    if not stored.is_empty:
        _check(stored, calibration, bands)
    return TileNumbers(first.scales, first.offsets, calibration)


def _check(stored: StoredValues, calibration: Calibration, bands: Sequence[str]) -> None:
    if looks_like_8_bit(stored, calibration):
        raise TrainingError(
            f"The tiles hold {stored.dtype} numbers up to {stored.high():.0f}, too small for reflectance x "
            "10,000: if they are 8-bit colours, convert the tiles with gdal_translate -ot Byte."
        )
    if fault := fault_of(calibration, stored, bands):
        text = f"The reflectance of the tiles is {fault.value}: check `offset` and the tags of the files."
        log_note(log, "tiles", warning("values-implausible", "offset", text))


def _sample(tiles: Sequence[StoredTile]) -> np.ndarray:
    """Return valid pixels (B, n)."""
    parts = (
        tile.pixels[:, ::2, ::2][:, slice(None) if tile.valid is None else tile.valid[::2, ::2]]
        for tile in tiles
        if len(tile.pixels) == len(tiles[0].pixels)
    )
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)
