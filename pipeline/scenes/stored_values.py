"""What a scene's files hold, as numbers: their type, GDAL's scale and offset, and a sample of the pixels."""

from collections.abc import Callable
from functools import cached_property

import numpy as np
import numpy.typing as npt

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
    def sample(self) -> npt.NDArray:
        """Return valid pixels, shape (B, n), without those that are 0 in every band."""
        pixels = self._draw_sample()
        return pixels[:, pixels.any(axis=0)]

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
