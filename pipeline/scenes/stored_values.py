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
    def sample(self) -> npt.NDArray:
        """Return valid pixels, shape (B, n), without those that are 0 in every band."""
        pixels = self._draw_sample()
        return pixels[:, pixels.any(axis=0)]

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
