"""Whether reflectance is such as ground has: a reading of stored values is tried against the pixels.

Pure functions on numbers, no files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from pipeline.scenes.atmosphere import clear_atmosphere
from pipeline.scenes.stored_values import StoredValues
from pipeline.values import NATURAL_COLOR

# Limits of reflectance. Open water, the darkest ground, has 0.008 or more in its brightest band; sunlit
# cloud and snow stay below 1.5. Overcorrected shadow and noise lie a little below 0, in few pixels.
DARKEST_HIGH = 0.004
BRIGHTEST_HIGH = 2.0
NOISE_BELOW = -0.01
SHADOW_BELOW = -0.03
LOWEST_DARK = -0.05

# What is as bright as this is cloud, snow, bare ground or concrete, and none of them is green or blue.
BRIGHT_GREEN, GREENER = 0.3, 1.1
BRIGHT, COLORFUL = 0.4, 2.0
DARKEST_OF_BRIGHT = 0.1

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


def brightness(stored: StoredValues, scales: Sequence[float], offsets: Sequence[float]) -> Brightness:
    """Return how bright the pixels are if reflectance = scale[b] * (stored value + offset[b])."""
    return Brightness(*(np.asarray(scales) * (stored.levels + np.asarray(offsets))))


def fault_of(found: Brightness, bands: Sequence[str]) -> Fault | None:
    """Return what is impossible about the brightness of `bands`, None if it may be that of ground."""
    if found.dark.min() < LOWEST_DARK:
        return Fault.BELOW_ZERO
    if found.high.max() < DARKEST_HIGH:
        return Fault.TOO_DARK
    if not found.high.max() <= BRIGHTEST_HIGH:  # also NaN
        return Fault.TOO_BRIGHT
    if set(NATURAL_COLOR) <= set(bands) and _is_too_colorful(found, bands):
        return Fault.COLORED
    return None


def lies_below_the_air(found: Brightness, bands: Sequence[str]) -> bool:
    """Return whether ground is darker than the air in front of it, as Level-1C cannot be."""
    return any(
        dark < AIR_FLOOR * clear_atmosphere(band)[0]
        for band, dark in zip(bands, found.dark, strict=True)
        if band in AIRY_BANDS
    )


def _is_too_colorful(found: Brightness, bands: Sequence[str]) -> bool:
    red, green, blue = (float(found.median[bands.index(band)]) for band in NATURAL_COLOR)
    low, high = min(red, green, blue), max(red, green, blue)
    if low > DARKEST_OF_BRIGHT and green > BRIGHT_GREEN and green > GREENER * max(red, blue):
        return True
    return high > BRIGHT and high > COLORFUL * low and not red >= green >= blue
