"""What a scene's files hold, as numbers: their type, GDAL's scale and offset, and a sample of the pixels."""

from collections.abc import Callable, Sequence
from functools import cached_property
from math import isfinite

import numpy as np
import numpy.typing as npt

from pipeline.errors import SceneError
from pipeline.notes import Note, warning

Numbers = tuple[float, ...]
"""One for each of the model's bands."""

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
        scales: Numbers,
        offsets: Numbers,
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

    @property
    def has_offsets(self) -> bool:
        """Return whether the file itself says what to add to its values."""
        return any(offset != 0 for offset in self.offsets)

    @cached_property
    def is_whole(self) -> bool:
        """Return whether all values in the sample are whole numbers."""
        return not self.is_floating or bool((self.sample == np.rint(self.sample)).all())

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

    @cached_property
    def levels(self) -> npt.NDArray[np.float64]:
        """Return the values of the dark, the typical and the bright pixels of each band, shape (3, B)."""
        return np.quantile(self.sample, (DARK_QUANTILE, 0.5, HIGH_QUANTILE), axis=1).astype(np.float64)

    def high(self) -> float:
        """Return the value that nearly all pixels in all bands stay below."""
        return float(np.quantile(self.sample, HIGH_QUANTILE))

    @cached_property
    def _darkest(self) -> npt.NDArray:
        return np.quantile(self.sample, DARK_QUANTILE, axis=1)


def checked_tags(
    name: str, bands: Sequence[str], scales: Numbers, offsets: Numbers
) -> tuple[Numbers, Numbers, list[Note]]:
    """Return the scales and offsets that a scene's files tag `bands` with, and warnings of those left out.

    Numbers that cannot be meant in any band (0, negative, not finite) are left out. Raises SceneError if only
    some of the bands are tagged.
    """
    scales, notes = _checked(name, bands, "scale", scales, 1.0)
    offsets, more = _checked(name, bands, "offset", offsets, 0.0)
    return scales, offsets, notes + more


def _checked(
    name: str, bands: Sequence[str], kind: str, values: Numbers, none: float
) -> tuple[Numbers, list[Note]]:
    """Return the numbers or, where no band has one that can be meant, `none` for each."""
    bad = [not isfinite(value) or (kind == "scale" and value <= 0) for value in values]
    usable = [not wrong and value != none for wrong, value in zip(bad, values, strict=True)]
    if all(usable) or (not any(bad) and not any(usable)):
        return values, []
    listing = ", ".join(f"{band} {value:g}" for band, value in zip(bands, values, strict=True))
    if any(usable):
        raise SceneError(
            f"{name} is tagged with a {kind} for some of the bands only ({listing}): tag all of them with "
            f"gdal_edit.py -{kind}, or none (-{kind} {none:g})."
        )
    text = f"The file's {kind} tags ({listing}) cannot be meant and are ignored."
    return (none,) * len(values), [warning(f"{kind}-ignored", None, text)]


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
