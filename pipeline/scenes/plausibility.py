"""Whether reflectance is such as ground has: a reading of stored values is tried against the pixels.

Pure functions on numbers, no files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from pipeline.scenes.atmosphere import clear_atmosphere
from pipeline.scenes.stored_values import Numbers, StoredValues
from pipeline.values import DIGITAL_NUMBERS, NATURAL_COLOR

# Limits of reflectance. Open water, the darkest ground, has 0.008 or more in its brightest band; sunlit
# cloud and snow stay below 1.5. Overcorrected shadow and noise lie a little below 0, in few pixels.
DARKEST_HIGH = 0.004
BRIGHTEST_HIGH = 2.0
NOISE_BELOW = -0.01
SHADOW_BELOW = -0.03
LOWEST_DARK = -0.05

# What is this bright is cloud, snow, ice, bare ground or concrete: none of them is green, or vividly blue.
BRIGHT_GREEN, GREENER, NOT_DARK = 0.3, 1.1, 0.1
BRIGHT, VIVID = 0.6, 2.0
COLORFUL_SHARE = 0.35  # of the pixels; of real scenes hardly any

# Seen from above, dark ground has at least this share of a clear atmosphere's own brightness in short waves.
AIR_FLOOR = 0.25
AIRY_BANDS = ("B01", "B02", "B03")


class Fault(Enum):
    """Why reflectance cannot be that of ground."""

    TOO_DARK = "darker than any ground"
    TOO_BRIGHT = "brighter than any ground, cloud or snow"
    COLORED = "bright as cloud or sand, but in a color that neither has"
    BELOW_ZERO = "darker than black"


@dataclass(frozen=True)
class Brightness:
    """The reflectance of a scene's dark, typical and bright pixels, float64 (B,) each."""

    dark: npt.NDArray[np.float64]
    """Hardly a pixel is darker."""

    median: npt.NDArray[np.float64]
    """Half of the pixels are darker."""

    high: npt.NDArray[np.float64]
    """Few pixels are brighter."""


@dataclass(frozen=True)
class Calibration:
    """How stored values become reflectance: scale[b] * (stored value + offset[b])."""

    scales: Numbers
    """The factor of each band."""

    offsets: Numbers
    """What is added to the stored values of each band."""

    def shifted(self, reflectance: float) -> "Calibration":
        """Return this one with another offset, given in reflectance."""
        # Multiplied first: so the offset is whole for Sentinel-2's own scale.
        shift = reflectance * DIGITAL_NUMBERS
        return Calibration(self.scales, tuple(shift / (scale * DIGITAL_NUMBERS) for scale in self.scales))

    def apply(self, stored: npt.NDArray) -> npt.NDArray[np.float64]:
        """Return the reflectance of stored values, shape (..., B)."""
        return np.asarray(self.scales) * (stored + np.asarray(self.offsets))

    def brightness(self, stored: StoredValues) -> Brightness:
        """Return how bright the pixels are as this one reads them."""
        return Brightness(*self.apply(stored.levels))


def fault_of(calibration: Calibration, stored: StoredValues, bands: Sequence[str]) -> Fault | None:
    """Return what is impossible about a scene as a calibration reads it, None if it may be ground."""
    found = calibration.brightness(stored)
    if found.dark.min() < LOWEST_DARK:
        return Fault.BELOW_ZERO
    if found.high.max() < DARKEST_HIGH:
        return Fault.TOO_DARK
    if not found.high.max() <= BRIGHTEST_HIGH:  # also NaN
        return Fault.TOO_BRIGHT
    if found.high.max() > BRIGHT_GREEN and set(NATURAL_COLOR) <= set(bands):
        pixels = calibration.apply(stored.sample.T).T
        if _is_colorful(*(pixels[bands.index(band)] for band in NATURAL_COLOR)).mean() > COLORFUL_SHARE:
            return Fault.COLORED
    return None


def lies_below_the_air(found: Brightness, bands: Sequence[str]) -> bool:
    """Return whether ground is darker than the air in front of it, as Level-1C cannot be."""
    return any(
        dark < AIR_FLOOR * clear_atmosphere(band)[0]
        for band, dark in zip(bands, found.dark, strict=True)
        if band in AIRY_BANDS
    )


def _is_colorful(red: npt.NDArray, green: npt.NDArray, blue: npt.NDArray) -> npt.NDArray[np.bool_]:
    """Return which pixels are bright and yet green, or bright and vivid without being red."""
    low, high = np.minimum(red, np.minimum(green, blue)), np.maximum(red, np.maximum(green, blue))
    is_green = (low > NOT_DARK) & (green > BRIGHT_GREEN) & (green > GREENER * np.maximum(red, blue))
    is_sand = (red >= green) & (green >= blue)
    return is_green | ((high > BRIGHT) & (high > VIVID * low) & ~is_sand)
