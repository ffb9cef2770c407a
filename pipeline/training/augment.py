"""Random variations of training tiles, on the device, whole batches at a time.

Networks on 10 m tiles are sensitive to sharpness: trained on interpolated crops alone, one lost eleven
points on tiles as they are. So only a share of the tiles is interpolated (warped or softened); the others are
shifted by whole pixels, flipped and turned by quarters, which keeps them sharp.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from pipeline.values import Scaling


@dataclass(frozen=True)
class AugmentOptions:
    """How much tiles may vary."""

    warp_share: float = 0.35
    """Share of tiles that are scaled and turned, and thus interpolated."""

    max_scale: float = 1.25
    """Warped tiles are scaled by 1/max_scale to max_scale."""

    soften_share: float = 0.0
    """Share of tiles that are brought to pixels up to max_scale as large and back, like coarser scenes."""

    max_shift: int = 8
    """Pixels, for tiles that are not warped."""

    band_detail: float = 0.0
    """Each band's finest detail is multiplied by 1 - band_detail to 1 + band_detail."""

    gain: float = 0.15
    """The tile's reflectance is multiplied by 1 - gain to 1 + gain."""

    band_gain: float = 0.08
    """The same for each band separately."""

    band_offset: float = 0.01
    """Reflectance added to or taken from each band: haze, or its removal (L1C against L2A)."""


def augment(
    images: torch.Tensor, options: AugmentOptions, scaling: Scaling, generator: torch.Generator
) -> torch.Tensor:
    """Vary (N, B, T, T) float32 training values at random.

    `scaling` says what reflectance they stand for. They stay within its limits, to which a scene's values are
    clipped too.
    """
    images = _dihedral(images, generator)
    shifted = _shift(images, options.max_shift, generator)
    # Drawn and counted on the CPU and sent without blocking, so that nothing waits for the GPU.
    draw = torch.rand(len(images), generator=generator)
    warped = (draw < options.warp_share).nonzero()[:, 0]
    if len(warped):
        warped = warped.to(images.device, non_blocking=True)
        shifted[warped] = _warp(images[warped], options.max_scale, generator)
    # From the other end of the draw, so that tiles are not warped too while others are left.
    softened = (draw > 1 - options.soften_share).nonzero()[:, 0]
    if len(softened):
        softened = softened.to(images.device, non_blocking=True)
        shifted[softened] = _soften(shifted[softened], options.max_scale, generator)
    if options.band_detail:
        shifted = _vary_detail(shifted, options.band_detail, generator)
    return _radiometry(shifted, options, scaling, generator)


def random_crop(images: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    """Cut a random (N, B, size, size) piece out of each image, without interpolation."""
    if size == images.shape[-1]:
        return images
    return _cut(images, images.shape[-1] - size, size, generator)


def _uniform(shape: int | tuple[int, ...], generator: torch.Generator, device: torch.device) -> torch.Tensor:
    return torch.rand(shape, generator=generator).to(device, non_blocking=True)


def _dihedral(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Apply one of the square's eight symmetries to each image."""
    for variant in (lambda x: x.flip(-1), lambda x: x.flip(-2), lambda x: x.transpose(-1, -2)):
        chosen = _uniform(len(images), generator, images.device) < 0.5
        images = torch.where(chosen[:, None, None, None], variant(images), images)
    return images


def _shift(images: torch.Tensor, max_shift: int, generator: torch.Generator) -> torch.Tensor:
    """Move each image by whole pixels; it is reflected at the border."""
    size = images.shape[-1]
    padded = F.pad(images, [max_shift] * 4, mode="reflect")
    return _cut(padded, 2 * max_shift, size, generator)


def _cut(images: torch.Tensor, slack: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """Cut a `size` x `size` window out of each image, starting anywhere from 0 to `slack`."""
    n = len(images)
    start = torch.randint(0, slack + 1, (2, n, 1), generator=generator).to(images.device, non_blocking=True)
    offsets = torch.arange(size, device=images.device)
    rows, cols = start[0] + offsets, start[1] + offsets
    which = torch.arange(n, device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[which, rows[:, :, None], cols[:, None, :]].permute(0, 3, 1, 2)


def _warp(images: torch.Tensor, max_scale: float, generator: torch.Generator) -> torch.Tensor:
    """Scale (log-uniformly) and turn each image by any angle, interpolating bilinearly."""
    n, device = len(images), images.device
    scale = torch.exp((2 * _uniform(n, generator, device) - 1) * math.log(max_scale))
    angle = _uniform(n, generator, device) * 2 * math.pi
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    zero = torch.zeros_like(cos)
    matrices = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _soften(images: torch.Tensor, max_scale: float, generator: torch.Generator) -> torch.Tensor:
    """Resample images to coarser pixels, the same for all, and back, bilinearly or bicubically."""
    size = images.shape[-1]
    share, kernel = torch.rand(2, generator=generator).tolist()
    coarse = round(size / (1 + share * (max_scale - 1)))
    mode = "bilinear" if kernel < 0.5 else "bicubic"
    small = F.interpolate(images, size=coarse, mode="bilinear", antialias=True, align_corners=False)
    return F.interpolate(small, size=size, mode=mode, align_corners=False)


def _vary_detail(images: torch.Tensor, amount: float, generator: torch.Generator) -> torch.Tensor:
    """Strengthen or weaken the difference from the mean of 3 x 3 pixels, in each band separately.

    JPEG stores color at half the resolution of brightness, so that EuroSAT's pictures have the brightness's
    fine detail in every band: a sixth less in red, and more in blue, than scenes have.
    """
    coarse = F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    factor = 1 + (2 * _uniform(images.shape[:2], generator, images.device) - 1) * amount
    return torch.lerp(coarse, images, factor[:, :, None, None])


def _radiometry(
    images: torch.Tensor, options: AugmentOptions, scaling: Scaling, generator: torch.Generator
) -> torch.Tensor:
    """Multiply and shift reflectance, computed on the values that it was stretched to."""
    n, bands = images.shape[:2]
    zero = scaling.to_value(0.0)

    def spread(shape: tuple[int, int], amount: float) -> torch.Tensor:
        return ((2 * _uniform(shape, generator, images.device) - 1) * amount)[:, :, None, None]

    gain = (1 + spread((n, 1), options.gain)) * (1 + spread((n, bands), options.band_gain))
    offset = zero + spread((n, bands), options.band_offset * scaling.stretch)
    return ((images - zero) * gain + offset).clamp(*scaling.values)
