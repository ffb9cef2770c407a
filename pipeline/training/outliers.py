"""Clouds and snow drawn over tiles: what a model has no class for, and should not be sure about.

`robustness` measures that; training teaches it with `random_outliers`, whose target is that all classes are
equally right (outlier exposure, Hendrycks et al. 2019). Tensors on the device, whole batches.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.values import Scaling

CLOUD = (0.3, 0.9)
"""Top-of-atmosphere reflectance of thick water clouds."""

SNOW = (0.15, 0.9)
"""Top-of-atmosphere reflectance of snow in shade and in the sun."""

SNOW_DIMMED = {"B10": 0.01, "B11": 0.15, "B12": 0.15}
"""Factors: ice is dark in the short-wave infrared, and the cirrus band does not see the ground."""

EDGE = 0.3
"""Share of a cloud field over which a cloud thins out towards its edge."""


@dataclass(frozen=True)
class Ground:
    """Tiles to be covered."""

    values: Tensor
    """(N, B, T, T) float32 training values."""

    scaling: Scaling
    """What reflectance they stand for."""

    bands: Sequence[str]
    """Sentinel-2 names in channel order."""

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
    """Draw white clouds over a share `cover` of each tile; `opacity` is of the thinnest and the thickest."""
    field, density, brightness = (ground.noise(generator) for _ in range(3))
    inside = ((field - (1 - cover)) / EDGE).clamp(0, 1) if cover < 1 else torch.ones_like(field)
    hidden = inside * (opacity[0] + (opacity[1] - opacity[0]) * density)
    cloud = ground.value_of(CLOUD[0] + (CLOUD[1] - CLOUD[0]) * brightness)
    return torch.lerp(ground.values, cloud.expand_as(ground.values), hidden.expand_as(ground.values))


def snow(ground: Ground, generator: torch.Generator) -> Tensor:
    """Draw snow over each whole tile, on slopes in sun and in shade."""
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
    """Return training values (N, B, T, T) float32 of the ground under a `kind` of `KINDS`."""
    return KINDS[kind](ground, generator).clamp(*ground.scaling.values)


def random_outliers(ground: Ground, generator: torch.Generator) -> Tensor:
    """Return training values (N, B, T, T) float32 of the ground, each tile under a random one of `KINDS`."""
    chosen = torch.randint(len(KINDS), (len(ground.values),), generator=generator)
    covered = ground.values.clone()
    for number, kind in enumerate(KINDS):
        these = (chosen == number).nonzero()[:, 0]  # counted on the CPU, so as not to wait for the GPU
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
    """Return (count, size, size) float32 noise, uniform over 0 to 1, with power f^-exponent.

    With an exponent near 3 it looks like cumulus. The generator is one of the CPU, so that its draws are the
    same on every device. The noise is cut out of a larger field, since the Fourier transform's is periodic.
    """
    rows = torch.fft.fftfreq(2 * size, device=device)[:, None]
    cols = torch.fft.rfftfreq(2 * size, device=device)
    frequency = torch.hypot(rows, cols)
    frequency[0, 0] = torch.inf
    white = torch.randn(count, 2 * size, 2 * size, generator=generator).to(device, non_blocking=True)
    field = torch.fft.irfft2(torch.fft.rfft2(white) * frequency ** (-exponent / 2))[:, :size, :size]
    rank = field.flatten(1).argsort(dim=1).argsort(dim=1)
    return (rank / (size * size - 1)).reshape(count, size, size)
