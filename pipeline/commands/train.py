"""`landcover train`: a model trained on tiles. Needs no GDAL: GPU servers may lack it."""

import logging
from pathlib import Path

import click

from pipeline.errors import UsageError
from pipeline.model.bundle import CARD
from pipeline.options import TrainOptions
from pipeline.training.checkpoint import CHECKPOINT
from pipeline.training.distributed import is_first_process
from pipeline.training.download import download as download_archive
from pipeline.training.download import eurosat_with
from pipeline.training.recipe import load_recipe
from pipeline.training.train import train as run_training


def train(
    data: Path,
    config: Path,
    output: Path,
    *,
    options: TrainOptions,
    download: bool,
    overwrite: bool,
) -> None:
    """Train a model, after downloading the tiles if asked to, and print how accurate it is."""
    recipe = load_recipe(config)
    if options.resume and overwrite:
        raise UsageError("--resume continues a run and --overwrite starts again: give one of them.")
    if not download and not data.is_dir():
        raise UsageError(
            f"--data {data} is not a folder: name one, or fetch EuroSAT into it with --download."
        )
    if not (options.resume or overwrite):
        check_unused(output)
    logging.getLogger("pipeline.training").setLevel(logging.INFO)
    if download:
        data = download_archive(eurosat_with(recipe.bands), data)
    bundle = run_training(data, recipe, output, options)
    if is_first_process():
        card = bundle.card
        click.echo(
            f"{bundle.path}: {card.metrics['accuracy']:.2%} on {card.metrics['split']}, "
            f"epoch {card.training['best_epoch']} of {recipe.epochs}"
        )


def check_unused(output: Path) -> None:
    """Raise UsageError if a folder holds a training run."""
    if any((output / name).exists() for name in (CARD, CHECKPOINT)):
        raise UsageError(
            f"{output} holds a training run already: continue it with --resume, start again with "
            "--overwrite, or choose another folder with -o."
        )
