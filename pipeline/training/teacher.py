"""A teacher: a trained model whose probabilities a student learns from (knowledge distillation)."""

from collections.abc import Callable

import torch
from torch import Tensor
from tqdm import tqdm

from pipeline.errors import TrainingError
from pipeline.model.bundle import load_bundle
from pipeline.model.card import ModelCard
from pipeline.model.weights import load_network, standardisation
from pipeline.training.batches import gather
from pipeline.training.dataset import TileSet
from pipeline.training.distributed import Team
from pipeline.training.execution import autocast, compile_network
from pipeline.training.recipe import Recipe

Teacher = Callable[[Tensor], Tensor]
"""Maps training values (N, B, T, T) to probabilities (N, C)."""


def load_teacher(recipe: Recipe, card: ModelCard, device: torch.device) -> Teacher:
    """Return the recipe's teacher for the student that `card` describes.

    Raises:
        TrainingError: it has other classes or takes other tiles than the student.
        ModelError: there is no such bundle.
    """
    assert recipe.teacher is not None
    bundle = load_bundle(recipe.teacher)
    for what in ("classes", "bands", "level", "scaling", "gsd", "tile_size"):
        if getattr(bundle.card, what) != getattr(card, what):
            raise TrainingError(
                f"The teacher '{recipe.teacher}' has other {what.replace('_', ' ')} than the training tiles."
            )
    network = load_network(bundle).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    forward = compile_network(network, recipe, device)
    mean, std = standardisation(bundle.card, device)

    @torch.no_grad()
    def teach(values: Tensor) -> Tensor:
        x = ((values - mean) / std).contiguous(memory_format=torch.channels_last)
        with autocast(recipe, device):
            logits = forward(x)
        return torch.softmax(logits.float(), dim=1)

    return teach


def ask_about_all(teach: Teacher, tiles: TileSet, recipe: Recipe, team: Team) -> Tensor:
    """Return the teacher's probabilities (N, C) for all tiles as they are, on the device.

    Each process of the team asks about its share of the tiles.
    """
    opinions = torch.zeros(len(tiles), len(tiles.classes), device=team.device)
    mine = team.share(torch.arange(len(tiles)))
    parts = mine.split(recipe.batch_size)
    for part in tqdm(parts, "asking the teacher", disable=None if team.is_first else True, leave=False):
        values, _ = gather(tiles, part, recipe.scaling, team.device)
        opinions[part.to(team.device)] = teach(values)
    return team.total(opinions)
