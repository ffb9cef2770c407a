"""The card of a model that is about to be trained: what its recipe and its tiles say about it."""

from pathlib import Path
from typing import Any

import torch

from pipeline.errors import TrainingError
from pipeline.model.card import ModelCard
from pipeline.model.classes import number_classes
from pipeline.training.batches import to_training_values
from pipeline.training.dataset import TileSet
from pipeline.training.initial_weights import InitialWeights
from pipeline.training.recipe import Recipe

SAMPLE = 2000
"""Tiles whose mean and standard deviation stand for all."""


def describe_model(
    recipe: Recipe, training: TileSet, split_method: str, initial: InitialWeights | None
) -> ModelCard:
    """Return the card of a model that is trained on the tiles `training`, without temperature and metrics.

    Raises:
        TrainingError: as `find_standards` does.
    """
    mean, std = find_standards(recipe, training, initial)
    # Names only: where files were on this machine is private.
    files: dict[str, Any] = {
        key: Path(value).name for key in ("initial_weights", "teacher") if (value := getattr(recipe, key))
    }
    return ModelCard(
        name=recipe.name,
        architecture=recipe.architecture,
        head=recipe.head,
        stem=recipe.stem,
        upsample=recipe.upsample,
        bands=recipe.bands,
        level=recipe.level,
        scaling=recipe.scaling,
        mean=mean,
        std=std,
        tile_size=training.size,
        gsd=recipe.gsd,
        classes=number_classes(training.classes),
        training={
            "recipe": recipe.to_dict() | files,
            "tiles": len(training),
            "split": split_method,
            "torch": torch.__version__,
        },
        license=recipe.license,
    )


def find_standards(
    recipe: Recipe, training: TileSet, initial: InitialWeights | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per band: the recipe's, the initial bundle's or the tiles' own.

    Raises:
        TrainingError: a band has the same value in all tiles.
    """
    if recipe.mean is not None and recipe.std is not None:
        return recipe.mean, recipe.std
    source = initial.card if initial is not None else None
    if source is not None and (source.bands, source.scaling) == (recipe.bands, recipe.scaling):
        return source.mean, source.std  # the weights expect them
    sample = to_training_values(training.images[:: max(1, len(training) // SAMPLE)], recipe.scaling)
    std, mean = torch.std_mean(sample, dim=(0, 2, 3))
    if flat := [(band, m) for band, m, s in zip(recipe.bands, mean, std, strict=True) if s == 0]:
        raise TrainingError(
            f"Clipped to the recipe's scaling, band {flat[0][0]} is {flat[0][1]:.0f} everywhere in the "
            "training tiles: leave it out of 'bands', or set 'scaling' to what the tiles hold."
        )
    return tuple(map(_six_digits, mean.tolist())), tuple(map(_six_digits, std.tolist()))


def _six_digits(value: float) -> float:
    """Round to six significant digits: fixed decimals would make small values 0."""
    return float(f"{value:.6g}")
