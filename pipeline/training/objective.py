"""What the network shall learn from a batch: mixed tiles, smoothed labels, a teacher's opinion, doubt."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

from pipeline.errors import TrainingError
from pipeline.model.bundle import load_bundle
from pipeline.model.card import ModelCard
from pipeline.model.device import can_compile, find_precision
from pipeline.model.weights import load_network, standardisation
from pipeline.training.distributed import Team
from pipeline.training.outliers import Ground, random_outliers
from pipeline.training.recipe import Recipe


class Objective:
    """Turns a batch into what is shown to the network and what it shall say.

    A teacher is asked about the tiles that the student sees, varied and mixed as they are, so that it teaches
    a function and not a label (Beyer et al. 2022, "Knowledge distillation: a good teacher is patient and
    consistent"); only where a stage then cuts pieces out of them does it see more. Raises TrainingError if
    it knows other classes or takes other tiles than the student's `card`, ModelError if there is no such
    bundle.
    """

    def __init__(self, recipe: Recipe, card: ModelCard, team: Team):
        self._classes = len(card.classes)
        self._scaling, self._bands = card.scaling, card.bands
        self._outlier_share = recipe.outlier_share
        self._team = team
        self._smoothing = recipe.label_smoothing
        self._mix = _mixing(recipe)
        self._teacher_weight = recipe.teacher_weight
        self._teach = load_teacher(recipe, card, team.device) if recipe.teacher else None

    def __call__(self, values: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the tiles to show, the targets (N, C), and the class (N,) that each is mostly of.

        `values` are (N, B, T, T) training values, `labels` (N,). Targets are probabilities: the labels'
        shares, smoothed, blended with the teacher's opinion. The recipe's share of outliers, the last ones,
        are of no class (-1), and all classes are equally right for them (Hendrycks et al. 2019, "Deep
        anomaly detection with outlier exposure").
        """
        shares = F.one_hot(labels, self._classes).float()
        if self._mix is not None:
            values, shares = self._mix(values, shares)
        targets = shares * (1 - self._smoothing) + self._smoothing / self._classes
        if self._teach is not None:
            targets = torch.lerp(targets, self._teach(values), self._teacher_weight)
        labels = shares.argmax(dim=1)
        if outliers := self._outliers_in(len(values)):
            ground = Ground(values[-outliers:], self._scaling, self._bands)
            values = torch.cat([values[:-outliers], random_outliers(ground, torch.default_generator)])
            targets[-outliers:] = 1 / self._classes
            labels[-outliers:] = -1
        return values, targets, labels

    def _outliers_in(self, share: int) -> int:
        """Return how many of this process's share of a batch are outliers: all together have the recipe's."""
        rank, size = self._team.rank, self._team.size
        count = round(self._outlier_share * share * size)
        return count * (rank + 1) // size - count * rank // size


def half_precision(recipe: Recipe, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context that networks run in: half precision, if the recipe and the device want it."""
    dtype = find_precision(recipe.precision, device)
    return torch.autocast(device.type, dtype, enabled=dtype is not torch.float32)


def load_teacher(recipe: Recipe, card: ModelCard, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return what maps training values (N, B, T, T) to the teacher's probabilities (N, C)."""
    assert recipe.teacher is not None
    bundle = load_bundle(recipe.teacher)
    for what in ("classes", "bands", "level", "scaling", "gsd", "tile_size"):
        if getattr(bundle.card, what) != getattr(card, what):
            raise TrainingError(
                f"The teacher '{recipe.teacher}' has other {what.replace('_', ' ')} than the training tiles."
            )
    network = load_network(bundle).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    compiles = recipe.compile and can_compile(device)
    forward = torch.compile(network, dynamic=False) if compiles else network
    mean, std = standardisation(bundle.card, device)

    @torch.no_grad()
    def teach(values: Tensor) -> Tensor:
        x = ((values - mean) / std).contiguous(memory_format=torch.channels_last)
        with half_precision(recipe, device):
            logits = forward(x)
        return torch.softmax(logits.float(), dim=1)

    return teach


def _mixing(recipe: Recipe) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
    """Return MixUp (Zhang et al. 2018), CutMix (Yun et al. 2019) or a choice of both for each batch."""
    mixing = [
        mix(alpha=alpha) for mix, alpha in ((v2.MixUp, recipe.mixup), (v2.CutMix, recipe.cutmix)) if alpha
    ]
    return v2.RandomChoice(mixing) if mixing else None
