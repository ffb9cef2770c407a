"""What a scene's files hold, as numbers: their type, GDAL's scale and offset, and a sample of the pixels."""

from collections.abc import Callable, Sequence
from functools import cached_property
from math import isfinite

import numpy as np
import numpy.typing as npt

DARK_QUANTILE = 0.005
"""The share of pixels that is darker than what counts as dark: outliers."""

REFLECTANCE = -0.5, 3.0
"""What reflectance can be, generously: the correction of the air leaves -0.2 in shadows, glints reach 2."""

OFFSET = 0.1
"""The reflectance that an offset may still add to or take from stored values."""

FILLED_BY_CHANCE = 0.01
"""The share of pixels that may hold any value: of a few, nothing is concluded."""

FILL_VALUES = 16
"""How many values a filling may have: it may be another in each band."""

Limits = tuple[float, float]
"""The lowest and the highest stored value of a band that mean something."""

HIGH_QUANTILE = 0.98
"""The share of values below what counts as high; above are clouds and glints."""


class StoredValues:
    """The numbers in a scene's files, before anything is known about what they mean.

    `scales` and `offsets` are GDAL's, one for each of the model's bands. `draw_sample` returns valid pixels
    of these bands, shape (B, n); it reads the files, so it is called only when nothing else helps.
    """

    def __init__(
        self,
        dtype: np.dtype,
        scales: tuple[float, ...],
        offsets: tuple[float, ...],
        draw_sample: Callable[[], npt.NDArray],
    ) -> None:
        self.dtype = dtype
        self.scales = scales
        self.offsets = offsets
        self._draw_sample = draw_sample

    @property
    def is_8_bit(self) -> bool:
        """Return whether the values are bytes that are not scaled to something else: colours."""
        return self.dtype.itemsize == 1 and not self.is_scaled

    @property
    def is_floating(self) -> bool:
        """Return whether the values are floating-point numbers."""
        return np.issubdtype(self.dtype, np.floating)

    @property
    def is_scaled(self) -> bool:
        """Return whether the file itself says how to scale its values."""
        return any(scale != 1 for scale in self.scales)

    @cached_property
    def drawn(self) -> npt.NDArray:
        """Return pixels from all over the scene, shape (B, n), that are valid by what the files declare."""
        return self._draw_sample()

    @cached_property
    def sample(self) -> npt.NDArray:
        """Return the drawn pixels but those without data, shape (B, n), as far as values alone tell.

        Without data are 0 in every band, and what is no reflectance whatever the offset.
        """
        pixels = self.drawn[:, self.drawn.any(axis=0)]
        pixels = pixels[:, ~_repeated(pixels)] if self.is_floating else pixels
        outside = outside_of(pixels, self._plausible_limits())
        return pixels if is_data(pixels[:, outside], pixels) else pixels[:, ~outside]

    def _plausible_limits(self) -> list[Limits]:
        """Return what each band may hold before its offset is known, and its scale if no tag says it."""
        if self.is_8_bit:
            return [(-np.inf, np.inf)] * len(self.scales)
        low, high = REFLECTANCE[0] - OFFSET, REFLECTANCE[1] + OFFSET
        known = [
            (scale, offset) if self.is_scaled and isfinite(scale + offset) and scale > 0 else (1e-4, 0.0)
            for scale, offset in zip(self.scales, self.offsets, strict=True)
        ]
        return [((low - offset) / scale, (high - offset) / scale) for scale, offset in known]

    @property
    def is_empty(self) -> bool:
        """Return whether the sample has no valid pixel at all."""
        return self.sample.shape[1] == 0

    def dark(self, band: int | None = None) -> float:
        """Return the value of the darkest pixels, of one band or of the darkest band."""
        return float(self._darkest.min() if band is None else self._darkest[band])

    def high(self) -> float:
        """Return the value that nearly all pixels in all bands stay below."""
        return float(np.quantile(self.sample, HIGH_QUANTILE))

    @cached_property
    def _darkest(self) -> npt.NDArray:
        return np.quantile(self.sample, DARK_QUANTILE, axis=1)


def outside_of(pixels: npt.NDArray, limits: Sequence[Limits]) -> npt.NDArray[np.bool_]:
    """Return which of the pixels (B, n) are outside of the limits in any band, shape (n,)."""
    found = np.zeros(pixels.shape[1], bool)
    for band, (low, high) in zip(pixels, limits, strict=True):
        found |= (band < low) | (band > high)
    return found


def is_data(chosen: npt.NDArray, pixels: npt.NDArray) -> bool:
    """Return whether impossible pixels (B, k) of the pixels (B, n) are data of another meaning, no filling.

    They are many and various then, while most of a filling is one value, or a few; the others are mixtures.
    """
    if chosen.shape[1] <= FILLED_BY_CHANCE * pixels.shape[1]:
        return False
    counts = np.sort(np.unique(chosen, return_counts=True)[1])
    return bool(counts[-FILL_VALUES:].sum() < counts.sum() / 2)


def _repeated(pixels: npt.NDArray) -> npt.NDArray[np.bool_]:
    """Return which floating-point pixels (B, n) hold one number in all bands that many others hold too.

    Measured values hardly ever do, a filling does, and it would hide the scale of the others.
    """
    same = (pixels == pixels[0]).all(axis=0) & (len(pixels) > 1)
    values, places, counts = np.unique(pixels[0, same], return_inverse=True, return_counts=True)
    same[same] = (counts > FILLED_BY_CHANCE * pixels.shape[1])[places]
    return same & (values.size > 0)
