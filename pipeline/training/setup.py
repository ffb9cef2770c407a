"""Everything before the first epoch: tiles are read and checked, the output folder is made ready."""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import TrainingError
from pipeline.files import make_folder, write_files
from pipeline.model.bundle import CARD, load_bundle
from pipeline.options import TrainOptions
from pipeline.training.checkpoint import CHECKPOINT, read_checkpoint, restore
from pipeline.training.dataset import TileSet, load_tiles
from pipeline.training.describe import describe_model
from pipeline.training.distributed import Team
from pipeline.training.history import HISTORY, write_history
from pipeline.training.initial_weights import InitialWeights, find_initial_weights
from pipeline.training.recipe import Recipe
from pipeline.training.run import Run, start_run
from pipeline.training.split_files import (
    REPORT_FILE,
    SPLIT_FILES,
    Split,
    count_common,
    known_split,
    write_names,
)
from pipeline.training.splits import split_tiles

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunTiles:
    """The labelled tiles of a run."""

    training: TileSet
    """Tiles to train on."""

    validation: TileSet
    """Tiles that choose the best epoch and the temperature."""

    report: TileSet | None
    """Tiles that measure the finished model; None where validation does."""

    split_method: str
    """How they were split, in words."""

    def split_files(self, output: Path) -> dict[Path, bytes | memoryview]:
        """Return the split files of the output folder and what they should hold."""
        parts = zip(SPLIT_FILES, (self.training, self.validation, self.report), strict=True)
        return {output / name: write_names(tiles.names) for name, tiles in parts if tiles is not None}


def set_up(
    data: Path, recipe: Recipe, output: Path, options: TrainOptions, team: Team
) -> tuple[Run, RunTiles]:
    """Return a run that is ready for its next epoch, and its tiles; see `train`."""
    checkpoint = _find_checkpoint(output, recipe) if options.resume else None
    torch.manual_seed(recipe.seed)
    # Before the tiles are read: a mistyped name should not cost minutes.
    initial = find_initial_weights(recipe)
    known = _split_to_keep(recipe, initial)
    tiles = _read_tiles(data, recipe, options, known)
    _check_tiles(recipe, tiles)
    _check_batches(recipe, len(tiles.training), team)
    card = describe_model(recipe, tiles.training, tiles.split_method, initial)
    run = start_run(recipe, card, initial, team)
    if team.is_first:
        _prepare_output(output, tiles, resumed=checkpoint is not None)
    if checkpoint is not None:
        _resume(run, checkpoint, output)
    if team.agree(run.progress.epoch) != run.progress.epoch:
        raise TrainingError(
            f"{output / CHECKPOINT} is not the same on all machines: give a folder that they share."
        )
    return run, tiles


def _find_checkpoint(output: Path, recipe: Recipe) -> dict[str, Any] | None:
    """Return the checkpoint to continue from; None if the run ended before its first one."""
    path = output / CHECKPOINT
    if path.is_file():
        return read_checkpoint(path, recipe)
    if (output / CARD).is_file() and (output / HISTORY).is_file():  # so there was one once
        raise TrainingError(
            f"{output} holds a model but no {CHECKPOINT} to continue from: start again with `overwrite`, or "
            "start elsewhere from this model's weights, by naming it as the recipe's initial_weights."
        )
    return None


def _split_to_keep(recipe: Recipe, initial: InitialWeights | None) -> Split | None:
    """Return the split of the model that training starts from or, without one, is taught by."""
    teacher = load_bundle(recipe.teacher) if recipe.teacher is not None else None
    if initial is not None and initial.split is not None:
        return initial.split
    return known_split(teacher.path) if teacher is not None else None


def _read_tiles(data: Path, recipe: Recipe, options: TrainOptions, known: Split | None) -> RunTiles:
    split = split_tiles(
        data,
        validation_share=recipe.validation_share,
        seed=recipe.seed,
        method=options.split,
        known=known,
    )
    load = partial(load_tiles, data, bands=recipe.bands, skip_unreadable=options.skip_unreadable)
    training = load(split.train, offset=options.offset)
    validation = load(split.validation, like=training)
    report = load(split.report, like=training) if split.report else None
    if known is not None:
        _warn_of_known_tiles(split, known)
    return RunTiles(training, validation, report, split.method)


def _warn_of_known_tiles(split: Split, known: Split) -> None:
    """Warn of tiles that are to measure the model although they are known to the one that it builds on."""
    if seen := count_common(split.validation, known.train):
        log.warning(
            "The model that training starts from, or is taught by, was trained on %d of the %d tiles to "
            "validate on, so accuracy will look better than it is. `split` auto takes that model's split if "
            "there are no split files in the data folder.",
            seen,
            len(split.validation),
        )
    if seen := count_common(split.report, known.train + known.validation):
        log.warning(
            "The model that training starts from, or is taught by, was trained on or chosen by %d of the %d "
            "tiles to report on, so the figures in the card will look better than they are.",
            seen,
            len(split.report),
        )


def _check_tiles(recipe: Recipe, tiles: RunTiles) -> None:
    """Raise TrainingError for tiles that do not suit the recipe or each other."""
    classes, size = tiles.training.classes, tiles.training.size
    if not 2 <= len(classes) <= 255:
        raise TrainingError(f"There are {len(classes)} classes; a map can tell 2 to 255 apart.")
    for what, others in (("validation", tiles.validation), ("report", tiles.report)):
        if others is not None and others.size != size:
            raise TrainingError(f"Training tiles are {size} pixels wide and {what} tiles {others.size}.")
    largest = max(stage.size for stage in recipe.stages)
    if largest > size:
        raise TrainingError(f"The recipe has a stage at {largest} pixels; the tiles are {size} pixels wide.")
    if recipe.augment.max_shift >= size:
        raise TrainingError(f"The recipe's max_shift must be less than the tiles' width, {size} pixels.")


def _check_batches(recipe: Recipe, tiles: int, team: Team) -> None:
    """Raise TrainingError for a batch size that does not suit tiles or processes; warn of a slow average."""
    if tiles < recipe.batch_size:
        raise TrainingError(f"{tiles} training tiles do not fill a batch of {recipe.batch_size}.")
    if recipe.batch_size % team.size or recipe.batch_size < 2 * team.size:  # batch norm needs two
        raise TrainingError(
            f"The recipe's batch_size {recipe.batch_size} cannot be divided evenly among {team.size} "
            "processes, with two tiles or more for each: change it or --nproc-per-node."
        )
    steps = recipe.epochs * (tiles // recipe.batch_size)
    if steps * (1 - recipe.ema_decay) < 2:
        log.warning(
            "%d steps are too few for ema_decay %g: the averaged weights will lag far behind; try %.2g",
            steps,
            recipe.ema_decay,
            1 - 5 / steps if steps > 10 else 0.5,
        )


def _prepare_output(output: Path, tiles: RunTiles, *, resumed: bool) -> None:
    """Clear the folder of an earlier run, or check that the run to resume was started with these tiles."""
    make_folder(output)
    wanted = tiles.split_files(output)
    if not resumed:
        # A card beside another run's split would mislead.
        for name in (CHECKPOINT, HISTORY, CARD, REPORT_FILE):
            (output / name).unlink(missing_ok=True)
        write_files(wanted)
        return
    there = {path: path.read_bytes() for name in SPLIT_FILES if (path := output / name).is_file()}
    if there != wanted:
        raise TrainingError(
            f"The run in {output} was started with other tiles: "
            "give another output folder, or start again with `overwrite` in place of `resume`."
        )


def _resume(run: Run, checkpoint: dict[str, Any], output: Path) -> None:
    """Bring the run to the state in the checkpoint, and the history file with it."""
    run.progress = restore(checkpoint, run.parts)
    log.info("resuming after epoch %d", run.progress.epoch)
    if run.team.is_first:
        write_history(output / HISTORY, run.progress.history)
