"""What the network should learn from a batch: mixed tiles, smoothed labels, a teacher's opinion, doubt."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

from pipeline.model.card import ModelCard
from pipeline.training.distributed import Team
from pipeline.training.mosaic import add_mosaics
from pipeline.training.outliers import Ground, random_outliers
from pipeline.training.recipe import Recipe
from pipeline.training.teacher import load_teacher


class Objective:
    """Turns a batch into the tiles that the network sees and the targets that it should give.

    Unless its opinions are cached, the teacher is asked about the very tiles that the student sees, augmented
    and mixed, so that it teaches a function and not a label (Beyer et al. 2022, "Knowledge
    distillation: a good teacher is patient and consistent"). It sees more than the student only where a stage
    then crops the tiles.

    Raises:
        TrainingError: the teacher has other classes or takes other tiles than the student's `card` says.
        ModelError: there is no such teacher.
    """

    def __init__(self, recipe: Recipe, card: ModelCard, team: Team) -> None:
        self._recipe = recipe
        self._team = team
        self._classes = len(card.classes)
        self._scaling, self._bands = card.scaling, card.bands
        self._mix = _mixing(recipe)
        self.teacher = load_teacher(recipe, card, team.device) if recipe.teacher else None

    def __call__(
        self, values: Tensor, labels: Tensor, opinions: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the tiles to show, the targets (N, C), and the main class (N,) of each tile.

        `values` are (N, B, T, T) training values, `labels` (N,), `opinions` (N, C) the teacher's cached
        probabilities for these tiles, if the recipe has them cached. Targets are probabilities: the labels'
        shares, smoothed, blended with the teacher's opinion, then blended by area in mosaics. The last tiles
        become outliers, as many as the recipe says: they have no class (-1), and all classes are equally
        right for them (Hendrycks et al. 2019, "Deep anomaly detection with outlier exposure").
        """
        shares = F.one_hot(labels, self._classes).float()
        values, shares, opinions = self._mix_tiles(values, shares, opinions)
        if self.teacher is not None and opinions is None:
            opinions = self.teacher(values)
        smoothing = self._recipe.label_smoothing
        targets = shares * (1 - smoothing) + smoothing / self._classes
        if opinions is not None:
            targets = torch.lerp(targets, opinions, self._recipe.teacher_weight)
        values, both = add_mosaics(
            values,
            torch.cat([targets, shares], dim=1),
            self._count(self._recipe.mosaic_share, len(values)),
            torch.default_generator,
        )
        targets, shares = (part.contiguous() for part in both.chunk(2, dim=1))
        return self._add_outliers(values, targets, shares.argmax(dim=1))

    def _mix_tiles(
        self, values: Tensor, shares: Tensor, opinions: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Apply MixUp or CutMix, to cached opinions as to labels: they are about the tiles that are mixed."""
        if self._mix is None:
            return values, shares, opinions
        if opinions is None:
            return *self._mix(values, shares), None
        values, both = self._mix(values, torch.cat([shares, opinions], dim=1))
        shares, opinions = both.chunk(2, dim=1)
        return values, shares, opinions

    def _add_outliers(self, values: Tensor, targets: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if outliers := self._count(self._recipe.outlier_share, len(values)):
            ground = Ground(values[-outliers:], self._scaling, self._bands)
            values = torch.cat([values[:-outliers], random_outliers(ground, torch.default_generator)])
            targets[-outliers:] = 1 / self._classes
            labels[-outliers:] = -1
        return values, targets, labels

    def _count(self, share: float, tiles: int) -> int:
        """Return how many of this process's `tiles` make up its part of a `share` of the whole batch."""
        rank, size = self._team.rank, self._team.size
        count = round(share * tiles * size)
        return count * (rank + 1) // size - count * rank // size


def _mixing(recipe: Recipe) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
    """Return MixUp (Zhang et al. 2018), CutMix (Yun et al. 2019) or a choice of both for each batch."""
    mixing = [
        mix(alpha=alpha) for mix, alpha in ((v2.MixUp, recipe.mixup), (v2.CutMix, recipe.cutmix)) if alpha
    ]
    return v2.RandomChoice(mixing) if mixing else None
