"""Batches of training values, gathered from tiles in memory."""

from dataclasses import replace

import torch
from torch import Tensor

from pipeline.training.dataset import TileSet, value_step
from pipeline.values import Scaling

MAX_GPU_SHARE = 0.25
"""Tiles stay in the GPU's free memory if they take at most this share of it: gathering is free there."""


def move_to_device(tiles: TileSet, device: torch.device) -> TileSet:
    """Return the tiles in the GPU's memory if they fit well; else as they are."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if tiles.images.nbytes <= MAX_GPU_SHARE * free:
            return replace(tiles, images=tiles.images.to(device))
    return tiles


def gather(tiles: TileSet, chosen: Tensor, scaling: Scaling, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return training values (n, B, T, T) float32 and labels (n,) of the tiles `chosen`, on the device."""
    images = tiles.images[chosen.to(tiles.images.device, non_blocking=True)].to(device, non_blocking=True)
    return to_training_values(images, scaling), tiles.labels[chosen].to(device, non_blocking=True)


def to_training_values(images: Tensor, scaling: Scaling) -> Tensor:
    """Return stored pixels (uint8 or int16) as float32 training values, clipped to the scaling's limits."""
    gain, bias = value_step(images, scaling)
    return images.float().mul_(gain).add_(bias).clamp_(*scaling.values)
