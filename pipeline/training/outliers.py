"""Clouds and snow made over training tiles: what a model has no class for, and must not be sure of.

To measure that (`robustness`), or to teach it: tiles changed by `random_outliers` with all classes equally
right as their target (outlier exposure, Hendrycks et al. 2019). Tensors on the device, whole batches.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.values import Scaling

# Top-of-atmosphere reflectance of thick water clouds, and of snow in shade and in the sun.
CLOUD = (0.3, 0.9)
SNOW = (0.15, 0.9)
# Ice is dark in the short-wave infrared, and nothing on the ground is seen in the cirrus band.
SNOW_DIMMED = {"B10": 0.01, "B11": 0.15, "B12": 0.15}
EDGE = 0.3  # share of a cloud field over which a cloud thins out towards its edge


@dataclass(frozen=True)
class Ground:
    """What is covered: `values` (N, B, T, T) float32 training values, how they are scaled, their bands."""

    values: Tensor
    scaling: Scaling
    bands: Sequence[str]

    def value_of(self, reflectance: Tensor) -> Tensor:
        """Return the training value, not clipped, that stands for a reflectance."""
        return self.scaling.to_value(reflectance)

    def noise(self, generator: torch.Generator) -> Tensor:
        """Return fractal noise (N, 1, T, T) for every tile."""
        n, _, size, _ = self.values.shape
        return fractal_noise(n, size, generator, device=self.values.device)[:, None]


def clouded(
    ground: Ground, generator: torch.Generator, cover: float, opacity: tuple[float, float] = (1.0, 1.0)
) -> Tensor:
    """Put white clouds over a share `cover` of each tile; `opacity` is that of the thinnest and thickest."""
    field, density, brightness = (ground.noise(generator) for _ in range(3))
    inside = ((field - (1 - cover)) / EDGE).clamp(0, 1) if cover < 1 else torch.ones_like(field)
    hidden = inside * (opacity[0] + (opacity[1] - opacity[0]) * density)
    cloud = ground.value_of(CLOUD[0] + (CLOUD[1] - CLOUD[0]) * brightness)
    return torch.lerp(ground.values, cloud.expand_as(ground.values), hidden.expand_as(ground.values))


def snow(ground: Ground, generator: torch.Generator) -> Tensor:
    """Put snow over all of each tile, on slopes in sun and in shade."""
    slopes = SNOW[0] + (SNOW[1] - SNOW[0]) * ground.noise(generator)
    dimmed = torch.tensor([SNOW_DIMMED.get(band, 1.0) for band in ground.bands], device=slopes.device)
    return ground.value_of(slopes * dimmed[:, None, None])


KINDS: dict[str, Callable[[Ground, torch.Generator], Tensor]] = {
    "cloud over all of the tile": lambda ground, generator: clouded(ground, generator, 1.0),
    "cloud over half of the tile": lambda ground, generator: clouded(ground, generator, 0.5),
    "thin cloud over all of the tile": lambda ground, generator: clouded(ground, generator, 1.0, (0.3, 0.6)),
    "snow, partly in shade": snow,
}


def cover_with(kind: str, ground: Ground, generator: torch.Generator) -> Tensor:
    """Return training values (N, B, T, T) float32 of the ground under what `KINDS` calls `kind`."""
    return KINDS[kind](ground, generator).clamp(*ground.scaling.values)


def random_outliers(ground: Ground, generator: torch.Generator) -> Tensor:
    """Return training values (N, B, T, T) float32 of the ground, each tile under one of the `KINDS`."""
    chosen = torch.randint(len(KINDS), (len(ground.values),), generator=generator)
    covered = ground.values.clone()
    for number, kind in enumerate(KINDS):
        these = (chosen == number).nonzero()[:, 0]  # counted on the CPU: a GPU need not be waited for
        if len(these):
            these = these.to(covered.device, non_blocking=True)
            part = Ground(ground.values[these], ground.scaling, ground.bands)
            covered[these] = cover_with(kind, part, generator)
    return covered


def fractal_noise(
    count: int,
    size: int,
    generator: torch.Generator,
    *,
    exponent: float = 3.0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return (count, size, size) float32 noise, evenly spread over 0 to 1, with power f^-exponent.

    Near 3 it has the look of cumulus. The generator is one of the CPU, so that its draws are the same
    whatever the device. The noise is cut out of a larger field, since the transform's repeats.
    """
    rows = torch.fft.fftfreq(2 * size, device=device)[:, None]
    columns = torch.fft.rfftfreq(2 * size, device=device)
    frequency = torch.hypot(rows, columns)
    frequency[0, 0] = torch.inf
    white = torch.randn(count, 2 * size, 2 * size, generator=generator).to(device, non_blocking=True)
    field = torch.fft.irfft2(torch.fft.rfft2(white) * frequency ** (-exponent / 2))[:, :size, :size]
    rank = field.flatten(1).argsort(dim=1).argsort(dim=1)
    return (rank / (size * size - 1)).reshape(count, size, size)
