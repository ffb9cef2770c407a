"""Mosaics of training tiles, which show several classes, as tiles of a scene do and EuroSAT's do not.

A scene is cut without regard for what it shows, so most of its tiles straddle a border. A network that has
only seen tiles of one class is sure of one there, often the rarer: a strip of river makes a tile River.
Tensors on the device, whole batches.
"""

import torch
from torch import Tensor


def add_mosaics(
    values: Tensor, targets: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Replace the first `count` tiles by mosaics of two or three tiles of the batch.

    `values` are (N, B, T, T) and `targets` (N, C); neither is changed in place. Beyond a random line, a
    mosaic shows another tile of the batch; in every second mosaic, a further tile beyond a second line. Its
    target is the mean of these tiles' targets, weighted by area. The generator is one of the CPU, so that
    its draws are the same on every device.
    """
    if not count:
        return values, targets
    mixed, mixed_targets = values[:count], targets[:count]
    for parts in (count, count // 2):
        partners = torch.randperm(len(values), generator=generator)[:parts].to(values.device)
        beyond = half_planes(parts, values.shape[-1], generator).to(values.device)
        area = beyond.mean(dim=(1, 2))[:, None]
        new = torch.lerp(mixed[:parts], values[partners], beyond[:, None])
        new_targets = torch.lerp(mixed_targets[:parts], targets[partners], area)
        mixed = torch.cat([new, mixed[parts:]])
        mixed_targets = torch.cat([new_targets, mixed_targets[parts:]])
    return torch.cat([mixed, values[count:]]), torch.cat([mixed_targets, targets[count:]])


def half_planes(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Return (count, size, size) float32 masks: 1 beyond a line of random direction, 0 before it.

    The line's distance from the center is uniform, up to half the tile's width on either side, so that shares
    of a few percent occur as well as halves.
    """
    angle, distance = torch.rand(2, count, 1, 1, generator=generator)
    angle, distance = 2 * torch.pi * angle, (distance - 0.5) * size
    along = torch.arange(size) - (size - 1) / 2
    return (along * torch.cos(angle) + along[:, None] * torch.sin(angle) > distance).float()
