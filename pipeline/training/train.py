"""The training loop: a recipe and labelled tiles become a model bundle."""

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from pipeline.errors import TrainingError
from pipeline.model.bundle import Bundle, load_bundle
from pipeline.options import TrainOptions
from pipeline.training.augment import augment, random_crop
from pipeline.training.batches import gather, move_to_device
from pipeline.training.checkpoint import CHECKPOINT, save_checkpoint
from pipeline.training.dataset import TileSet
from pipeline.training.distributed import join_team
from pipeline.training.execution import autocast
from pipeline.training.history import EVENTS, HISTORY, Row, tensorboard, write_history
from pipeline.training.recipe import Recipe
from pipeline.training.run import Run
from pipeline.training.schedule import learning_rate_at, set_pace
from pipeline.training.setup import set_up
from pipeline.training.teacher import ask_about_all
from pipeline.training.validate import finish, validate

log = logging.getLogger(__name__)

CHECKPOINT_EVERY = 60
"""Seconds between checkpoints: a GPU's epoch may be shorter than it takes to write one."""

LOSS_SHOWN_EVERY = 10
"""Steps: reading the loss means waiting for the GPU."""


def train(data: Path, recipe: Recipe, output: Path, options: TrainOptions = TrainOptions()) -> Bundle:
    """Train as the recipe says and return the bundle of the epoch with the best validation accuracy.

    `output` gets the bundle, `history.csv` (a row an epoch), the split, the report, and a checkpoint from
    which `resume` continues exactly. Under `torchrun`, all its processes train one model.

    Raises:
        TrainingError: data, recipe, teacher or checkpoint cannot be used.
        ModelError: a model is missing, or initial weights are of another architecture.
        UsageError: `tensorboard` is wanted and the package is not installed.
        DeviceError: the device is absent.
        OutputError: `output` cannot be written. What is there already stays, and `resume` continues from it.
    """
    with (
        join_team(options.device) as team,
        tensorboard(output / EVENTS, options.tensorboard and team.is_first) as add_events,
    ):
        run, tiles = set_up(data, recipe, output, options, team)
        training = move_to_device(tiles.training, team.device)
        if recipe.teacher_cached and run.objective.teacher and run.progress.epoch < recipe.epochs:
            run.opinions = ask_about_all(run.objective.teacher, training, recipe, team)

        for epoch in range(run.progress.epoch, recipe.epochs):
            if run.out_of_patience:
                log.info("no improvement in %d validations: stopping", run.progress.validations_since)
                break
            with run.explain_out_of_memory():
                row = _train_epoch(run, training, epoch)
            if team.is_first:
                if (epoch + 1) % recipe.evaluate_every == 0 or epoch + 1 == recipe.epochs:
                    row |= validate(run, tiles.validation, epoch, output)
                _record(run, row, output)
                add_events(row)
            run.progress = team.agree(run.progress)

        best = run.progress.best_epoch
        log.info("best epoch %d: %.4f on validation", best + 1, run.progress.best_accuracy)
        if team.is_first:
            finish(output, tiles, team)
        team.agree("finished")  # the others wait for it
        return load_bundle(output)


def _train_epoch(run: Run, training: TileSet, epoch: int) -> Row:
    """Go once through the training tiles and return the epoch's row of the history."""
    recipe, team, stage = run.recipe, run.team, run.recipe.stage_of(epoch)
    forward = run.enter_stage(stage)
    # Seeded by epoch and process alone: a resumed run draws what an uninterrupted one would have drawn.
    order = torch.randperm(len(training), generator=_generator(recipe, epoch))
    generator = _generator(recipe, epoch, 1 + team.rank)
    torch.manual_seed(generator.initial_seed())  # dropout and mixing draw from the global one
    steps = len(training) // recipe.batch_size
    started, sums = time.perf_counter(), torch.zeros(2, device=team.device)  # of losses and accuracies

    title, hidden = f"epoch {epoch + 1}/{recipe.epochs}", None if team.is_first else True
    for step in (bar := tqdm(range(steps), title, disable=hidden, leave=False)):
        set_pace(run.optimizer, recipe, epoch + step / steps)
        chosen = team.share(order[step * recipe.batch_size : (step + 1) * recipe.batch_size])
        values, targets, labels = _make_batch(run, training, chosen, generator)
        x = (random_crop(values, stage.size, generator) - run.mean) / run.std
        sums += _train_step(run, forward, x, targets, labels)
        run.update_average(step, steps)
        if step % LOSS_SHOWN_EVERY == 0 and not bar.disable:
            bar.set_postfix(loss=f"{float(sums[0]) / (step + 1):.3f}")

    loss, accuracy = (team.total(sums) / (steps * team.size)).tolist()
    if not math.isfinite(loss):
        raise TrainingError(f"The loss is no longer finite in epoch {epoch + 1}: lower the learning rate.")
    return {
        "epoch": epoch + 1,
        "size": stage.size,
        "learning_rate": round(learning_rate_at(recipe, epoch + 1), 9),
        "train_loss": round(loss, 5),
        "train_accuracy": round(accuracy, 5),
        "seconds": round(time.perf_counter() - started, 1),
        "validation_loss": "",
        "validation_accuracy": "",
    }


def _make_batch(
    run: Run, training: TileSet, chosen: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Return augmented training values (n, B, T, T), targets (n, C) and labels (n,) of the tiles `chosen`."""
    values, labels = gather(training, chosen, run.recipe.scaling, run.team.device)
    values = augment(values, run.recipe.augment, run.recipe.scaling, generator)
    opinions = None if run.opinions is None else run.opinions[chosen.to(run.team.device, non_blocking=True)]
    return run.objective(values, labels, opinions)


def _train_step(
    run: Run, forward: Callable[[Tensor], Tensor], x: Tensor, targets: Tensor, labels: Tensor
) -> Tensor:
    """Learn from one batch and return its loss and accuracy, on the device."""
    with autocast(run.recipe, run.team.device):
        logits = forward(x.contiguous(memory_format=torch.channels_last))
    loss = F.cross_entropy(logits.float(), targets)
    run.scaler.scale(loss).backward()
    run.scaler.unscale_(run.optimizer)
    nn.utils.clip_grad_norm_(run.network.parameters(), run.recipe.gradient_clip)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.optimizer.zero_grad(set_to_none=True)
    with_class = (labels >= 0).sum().clamp(min=1)  # outliers have none
    accuracy = (logits.argmax(dim=1) == labels).sum() / with_class
    return torch.stack([loss.detach(), accuracy])


def _generator(recipe: Recipe, epoch: int, stream: int = 0) -> torch.Generator:
    """Return a CPU generator whose draws depend on recipe, epoch and stream alone."""
    return torch.Generator().manual_seed((recipe.seed * 100_003 + epoch) * 1009 + stream)


def _record(run: Run, row: Row, output: Path) -> None:
    """Record that an epoch is done; if this is interrupted, `resume` writes the files again."""
    log.info("%s", "  ".join(f"{key} {value}" for key, value in row.items()))
    run.progress.epoch = row["epoch"]
    run.progress.history.append(row)
    validated = row["validation_loss"] != ""
    if validated or time.monotonic() - run.saved > CHECKPOINT_EVERY:
        save_checkpoint(output / CHECKPOINT, run.recipe, run.parts, run.progress)
        run.saved = time.monotonic()
    write_history(output / HISTORY, run.progress.history)
