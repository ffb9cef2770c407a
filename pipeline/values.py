"""Reflectance, stored pixels and training values: how each becomes another. Numbers only, no files."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

NATURAL_COLOR = ("B04", "B03", "B02")
"""The bands of red, green and blue, in the order in which pictures hold them."""

DIGITAL_NUMBERS = 10_000
"""Sentinel-2 stores reflectance times this number."""

Numbers = TypeVar("Numbers", float, npt.NDArray, "Tensor")


@dataclass(frozen=True)
class Scaling:
    """How reflectance becomes the values that a network is trained on: clipped, then stretched linearly."""

    reflectance: tuple[float, float]
    """The lowest and the highest reflectance that the values can stand for."""

    values: tuple[float, float]
    """The values that stand for these two."""

    @property
    def stretch(self) -> float:
        """Return how many values a reflectance of 1 is worth."""
        (dark, bright), (low, high) = self.reflectance, self.values
        return (high - low) / (bright - dark)

    def to_value(self, reflectance: Numbers) -> Numbers:
        """Return the training value, not clipped, that stands for a reflectance (a number or an array)."""
        return self.values[0] + self.stretch * (reflectance - self.reflectance[0])

    def to_reflectance(self, value: Numbers) -> Numbers:
        """Return the reflectance that a training value (a number or an array) stands for."""
        return self.reflectance[0] + (value - self.values[0]) / self.stretch


EUROSAT_RGB_SCALING = Scaling(reflectance=(0.0, 0.275), values=(1.0, 255.0))
"""How EuroSAT's RGB tiles were made of L1C reflectance, checked on 375 pairs of its RGB and multispectral
tiles."""


@dataclass(frozen=True)
class PixelTransform:
    """value = clip(gain[b] * pixel + bias[b], low, high): stored pixel -> the model's training value.

    One multiplication and one addition a pixel, so that it can run on the device on raw integers.
    """

    gain: tuple[float, ...]
    bias: tuple[float, ...]
    low: float
    high: float

    @classmethod
    def identity(cls, bands: int) -> "PixelTransform":
        """Return the step for pixels that already are training values, 0 to 255: none."""
        return cls((1.0,) * bands, (0.0,) * bands, 0.0, 255.0)

    def apply(self, pixels: npt.NDArray) -> npt.NDArray[np.float32]:
        """Return training values, float32, for pixels of shape (B, H, W) or (N, B, H, W) of any dtype."""
        gain = np.asarray(self.gain, dtype=np.float32)[:, None, None]
        bias = np.asarray(self.bias, dtype=np.float32)[:, None, None]
        values = pixels.astype(np.float32)
        values *= gain
        values += bias
        return np.clip(values, self.low, self.high, out=values)
