"""The optimizer, and its learning rate and momentum in the course of a run.

Both depend on the epoch alone, so that a resumed run has nothing to restore.
"""

import math

import torch
from torch import nn

from pipeline.training.recipe import Recipe

# One-cycle's proportions, as in torch.optim.lr_scheduler.OneCycleLR.
START_DIVISOR, END_DIVISOR = 25.0, 25.0 * 1e4
SLOW_MOMENTUM, FAST_MOMENTUM = 0.95, 0.85
MOMENTUM = 0.9


def build_optimizer(network: nn.Module, recipe: Recipe, *, fused: bool = True) -> torch.optim.Optimizer:
    """Return the recipe's optimizer, which decays only kernels and matrices, not biases and scales.

    `fused` is faster, but cannot skip a step as float16 needs it where a gradient overflows.
    """
    decayed = [p for p in network.parameters() if p.dim() > 1]
    others = [p for p in network.parameters() if p.dim() <= 1]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=fused)
    optimizer = torch.optim.SGD(
        groups, lr=recipe.learning_rate, momentum=MOMENTUM, nesterov=True, fused=fused
    )
    # SGD creates these at a parameter's first gradient, which comes later for a frozen backbone; the fused
    # kernel wants them all from the start. Starting at zero gives the same results.
    for parameter in (*decayed, *others):
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def set_pace(optimizer: torch.optim.Optimizer, recipe: Recipe, epoch: float) -> None:
    """Set learning rate and momentum to those of `epoch`, which may be fractional."""
    momentum = momentum_at(recipe, epoch)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate_at(recipe, epoch)
        if "momentum" in group:
            group["momentum"] = momentum
        else:
            group["betas"] = (momentum, group["betas"][1])


def learning_rate_at(recipe: Recipe, epoch: float) -> float:
    """Return the learning rate at `epoch`: it rises for `warmup_epochs`, then falls along half a cosine.

    `cosine` rises in a line from 0 and falls to 0; `one_cycle` rises along half a cosine from 1/25 (Smith &
    Topin 2018, "Super-Convergence", with OneCycleLR's proportions).
    """
    peak, rising = recipe.learning_rate, recipe.warmup_epochs
    if epoch >= rising:
        end = peak / END_DIVISOR if recipe.schedule == "one_cycle" else 0.0
        return _half_cosine(peak, end, (epoch - rising) / (recipe.epochs - rising))
    if recipe.schedule == "one_cycle":
        return _half_cosine(peak / START_DIVISOR, peak, epoch / rising)
    return peak * min(max(epoch, 0.01) / rising, 1.0)


def momentum_at(recipe: Recipe, epoch: float) -> float:
    """Return SGD's momentum or Adam's first beta: `one_cycle` lowers it while the learning rate is high."""
    if recipe.schedule != "one_cycle":
        return MOMENTUM
    rising = recipe.warmup_epochs
    if epoch < rising:
        return _half_cosine(SLOW_MOMENTUM, FAST_MOMENTUM, epoch / rising)
    return _half_cosine(FAST_MOMENTUM, SLOW_MOMENTUM, (epoch - rising) / (recipe.epochs - rising))


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))
