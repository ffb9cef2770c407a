"""How a recipe's networks run on the device: in which precision, compiled or not."""

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from pipeline.model.device import can_compile, find_precision
from pipeline.training.recipe import Recipe


def autocast(recipe: Recipe, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context to run networks in: half precision, if recipe and device say so."""
    dtype = find_precision(recipe.precision, device)
    return torch.autocast(device.type, dtype, enabled=dtype is not torch.float32)


def uses_float16(recipe: Recipe, device: torch.device) -> bool:
    """Tell whether the loss must be scaled: bfloat16 has the range of float32, float16 does not."""
    return find_precision(recipe.precision, device) is torch.float16


def compile_network(network: nn.Module, recipe: Recipe, device: torch.device) -> Any:
    """Return the network compiled, if the recipe says so and a compiler is there; else as it is."""
    return torch.compile(network, dynamic=False) if recipe.compile and can_compile(device) else network
