"""Converting between stored pixels, reflectance and training values. Numbers only, no files."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

NATURAL_COLOR = ("B04", "B03", "B02")
"""The bands for red, green and blue, in the order of a picture's channels."""

DIGITAL_NUMBERS = 10_000
"""Sentinel-2 stores reflectance times this number."""

Numbers = TypeVar("Numbers", float, npt.NDArray, "Tensor")


@dataclass(frozen=True)
class Scaling:
    """How reflectance becomes training values: clipped, then stretched linearly."""

    reflectance: tuple[float, float]
    """The lowest and the highest reflectance; what lies beyond is clipped."""

    values: tuple[float, float]
    """The training values of these two."""

    @property
    def stretch(self) -> float:
        """Training values per unit of reflectance."""
        (dark, bright), (low, high) = self.reflectance, self.values
        return (high - low) / (bright - dark)

    def to_value(self, reflectance: Numbers) -> Numbers:
        """Return the training value, not clipped, of a reflectance (a number or an array)."""
        return self.values[0] + self.stretch * (reflectance - self.reflectance[0])

    def to_reflectance(self, value: Numbers) -> Numbers:
        """Return the reflectance of a training value (a number or an array)."""
        return self.reflectance[0] + (value - self.values[0]) / self.stretch


EUROSAT_RGB_SCALING = Scaling(reflectance=(0.0, 0.275), values=(1.0, 255.0))
"""How EuroSAT's RGB tiles were made from L1C reflectance.

Checked on 375 pairs of its RGB and multispectral tiles.
"""


@dataclass(frozen=True)
class PixelTransform:
    """Stored pixel -> the model's training value: `clip(gain[b] * pixel + bias[b], low, high)`.

    One multiplication and one addition per pixel, which the device can do on raw integers.
    """

    gain: tuple[float, ...]
    """Factor of each band."""

    bias: tuple[float, ...]
    """Number added to each band, after the multiplication."""

    low: float
    """The lowest training value."""

    high: float
    """The highest training value."""

    @classmethod
    def identity(cls, bands: int) -> "PixelTransform":
        """Return the transform for pixels that are training values already, 0 to 255."""
        return cls((1.0,) * bands, (0.0,) * bands, 0.0, 255.0)

    def apply(self, pixels: npt.NDArray) -> npt.NDArray[np.float32]:
        """Return training values, float32, for pixels of shape (B, H, W) or (N, B, H, W) of any dtype."""
        gain = np.asarray(self.gain, dtype=np.float32)[:, None, None]
        bias = np.asarray(self.bias, dtype=np.float32)[:, None, None]
        values = pixels.astype(np.float32)
        values *= gain
        values += bias
        return np.clip(values, self.low, self.high, out=values)
