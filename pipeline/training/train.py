"""The training loop: a recipe and labelled tiles become a model bundle."""

import csv
import logging
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from pipeline.errors import OutputError, TrainingError
from pipeline.model.bundle import (
    Bundle,
    ModelCard,
    load_bundle,
    rewrite_card,
    save_bundle,
    standardisation,
)
from pipeline.model.classes import number_classes
from pipeline.model.device import find_device, find_precision
from pipeline.model.network import build_network, freeze, load_backbone, unfreeze
from pipeline.outputs.atomic import make_folder, write_file, write_files
from pipeline.training.augment import augment, random_crop
from pipeline.training.dataset import SPLIT_FILES, Split, TileSet, load_tiles, split_tiles
from pipeline.training.evaluate import Evaluation, evaluate_tiles, fit_temperature, predict_logits
from pipeline.training.recipe import Recipe
from pipeline.training.report import write_report

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
HISTORY = "history.csv"
EMA_EVERY = 8  # steps; averaging costs more than the optimizer, and 30 times an epoch is often enough


@dataclass
class Progress:
    """How far a run has come: what a checkpoint carries beside the tensors."""

    epoch: int = 0
    best_accuracy: float = 0.0
    best_epoch: int = -1


@dataclass
class Run:
    """What one training run works with; `average` holds the weights that are validated and kept."""

    recipe: Recipe
    device: torch.device
    network: nn.Module
    average: AveragedModel
    optimizer: torch.optim.Optimizer
    mean: torch.Tensor
    std: torch.Tensor
    forward: Callable[[torch.Tensor], torch.Tensor]
    teach: Callable[[torch.Tensor], torch.Tensor] | None
    progress: Progress


def train(data: Path, recipe: Recipe, output: Path, *, resume: bool = False) -> Bundle:
    """Train as the recipe says and return the bundle of the epoch with the best validation accuracy.

    `output` gets the bundle, `history.csv` (a row an epoch), the split, the report's plots, and a
    checkpoint from which `resume` continues as if nothing had happened. Without `resume`, what an
    earlier run left there is replaced. Raises TrainingError for data, a recipe or a checkpoint that
    cannot be used, ModelError for initial weights or a teacher that do not fit, OutputError if `output`
    cannot be written.
    """
    torch.manual_seed(recipe.seed)
    split = split_tiles(data, validation_share=recipe.validation_share, seed=recipe.seed)
    training, validation = load_tiles(data, split.train), load_tiles(data, split.validation)
    _check_tiles(training, validation, recipe)
    card = _describe(recipe, training, split)
    run = _start(recipe, card)
    _prepare_output(output, run, split, resume)

    for epoch in range(run.progress.epoch, recipe.epochs):
        row = _train_epoch(run, training, epoch)
        if (epoch + 1) % recipe.evaluate_every == 0 or epoch + 1 == recipe.epochs:
            with _autocast(recipe, run.device):
                logits = predict_logits(run.average.module, validation, run.mean, run.std, batch_size=256)
            accuracy = _evaluation(logits, validation).accuracy
            row["validation_loss"] = round(float(F.cross_entropy(logits, validation.labels)), 5)
            row["validation_accuracy"] = round(accuracy, 5)
            if run.progress.best_epoch < 0 or accuracy > run.progress.best_accuracy:
                run.progress.best_accuracy, run.progress.best_epoch = accuracy, epoch
                save_bundle(run.average.module, _finish_card(card, logits, validation, epoch), output)
        log.info("%s", "  ".join(f"{key} {value}" for key, value in row.items()))
        _append_history(output / HISTORY, row)
        run.progress.epoch = epoch + 1
        _save_checkpoint(output / CHECKPOINT, run)

    log.info("best epoch %d: %.4f on validation", run.progress.best_epoch + 1, run.progress.best_accuracy)
    return _conclude(load_bundle(output), output / HISTORY, validation)


def _check_tiles(training: TileSet, validation: TileSet, recipe: Recipe) -> None:
    """Raise TrainingError for tiles that the recipe cannot be followed with."""
    if training.classes != validation.classes:
        odd = sorted(set(training.classes) ^ set(validation.classes))
        raise TrainingError(f"The class '{odd[0]}' is in only one of training and validation.")
    if not 2 <= len(training.classes) <= 255:
        raise TrainingError(f"There are {len(training.classes)} classes; a map can tell 2 to 255 apart.")
    if len(training) < recipe.batch_size:
        raise TrainingError(f"{len(training)} training tiles do not fill a batch of {recipe.batch_size}.")
    bands, size = training.images.shape[1:3]
    if validation.images.shape[-1] != size:
        raise TrainingError(
            f"Training tiles are {size} pixels wide and validation tiles {validation.images.shape[-1]}."
        )
    if len(recipe.bands) != bands:
        raise TrainingError(f"The recipe names {len(recipe.bands)} bands; the tiles have {bands}.")
    largest = max(stage.size for stage in recipe.stages)
    if largest > size:
        raise TrainingError(f"The recipe has a stage at {largest} pixels; the tiles are {size} pixels wide.")
    if recipe.augment.max_shift >= size:
        raise TrainingError(f"The recipe's max_shift must be less than the tiles' width, {size} pixels.")
    steps = recipe.epochs * (len(training) // recipe.batch_size)
    if steps * (1 - recipe.ema_decay) < 2:
        log.warning(
            "%d steps are too few for ema_decay %g: the averaged weights will lag far behind; try %.2g",
            steps,
            recipe.ema_decay,
            1 - 5 / steps if steps > 10 else 0.5,
        )


def _start(recipe: Recipe, card: ModelCard) -> Run:
    """Build all that a run needs, at epoch 0."""
    device = find_device("auto")
    mean, std = standardisation(card, device)
    network = build_network(
        recipe.architecture,
        bands=len(recipe.bands),
        classes=len(card.classes),
        head=recipe.head,
        dropout=recipe.dropout,
    )
    if recipe.initial_weights:
        _load_initial_weights(network, Path(recipe.initial_weights))
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = AveragedModel(
        network, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay**EMA_EVERY), use_buffers=True
    )
    return Run(
        recipe=recipe,
        device=device,
        network=network,
        average=average,
        optimizer=_optimizer(network, recipe),
        mean=mean,
        std=std,
        forward=torch.compile(network, dynamic=False) if recipe.compile else network,
        teach=_load_teacher(recipe, card, device),
        progress=Progress(),
    )


def _load_initial_weights(network: nn.Module, path: Path) -> None:
    if not path.is_file():
        raise TrainingError(
            f"The recipe's initial weights {path} are not there: put the file there, let 'initial_weights' "
            "name it, or leave that out to start at random."
        )
    try:
        untouched = load_backbone(network, load_file(path))
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"The recipe's initial weights {path} cannot be read: {error}.") from error
    if untouched:
        log.info("%s has nothing for %s: they start at random", path.name, ", ".join(untouched))


def _prepare_output(output: Path, run: Run, split: Split, resume: bool) -> None:
    """Make the folder ready: go on from the checkpoint in it, or clear it of an earlier run."""
    make_folder(output)
    split_files: dict[Path, bytes] = {
        output / name: ("\n".join(tiles) + "\n").encode("utf-8")
        for name, tiles in zip(SPLIT_FILES, (split.train, split.validation), strict=True)
    }
    if resume and (output / CHECKPOINT).is_file():
        if any(not path.is_file() or path.read_bytes() != lines for path, lines in split_files.items()):
            raise TrainingError(
                f"The run in {output} was begun with other tiles: "
                "give another output folder or train without --resume."
            )
        _load_checkpoint(output / CHECKPOINT, run)
        _trim_history(output / HISTORY, run.progress.epoch)
        log.info("going on after epoch %d", run.progress.epoch)
    else:
        for name in (CHECKPOINT, HISTORY):
            (output / name).unlink(missing_ok=True)
        write_files(split_files)


def _train_epoch(run: Run, training: TileSet, epoch: int) -> dict[str, Any]:
    """Go once through the training tiles and return the epoch's row of the history."""
    recipe, stage = run.recipe, run.recipe.stage_of(epoch)
    (freeze if stage.freeze else unfreeze)(run.network)
    # Seeded by the epoch alone, so that a resumed run draws what an unbroken one would have drawn.
    torch.manual_seed(recipe.seed * 100_003 + epoch)
    generator = torch.Generator().manual_seed(recipe.seed * 100_003 + epoch)
    order = torch.randperm(len(training), generator=generator)
    steps = len(training) // recipe.batch_size
    started, total_loss, correct = time.perf_counter(), 0.0, 0

    for step in tqdm(range(steps), f"epoch {epoch + 1}/{recipe.epochs}", disable=None, leave=False):
        chosen = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
        labels = training.labels[chosen].to(run.device)
        values = augment(training.images[chosen].to(run.device).float(), recipe.augment, generator)
        target = _targets(run, values, labels, len(training.classes))
        x = (random_crop(values, stage.size, generator) - run.mean) / run.std
        with _autocast(recipe, run.device):
            logits = run.forward(x.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), target)
        loss.backward()
        nn.utils.clip_grad_norm_(run.network.parameters(), recipe.gradient_clip)
        for group in run.optimizer.param_groups:
            group["lr"] = _learning_rate(recipe, epoch + step / steps)
        run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)
        if step % EMA_EVERY == 0 or step + 1 == steps:
            run.average.update_parameters(run.network)
        total_loss += loss.item()
        correct += int((logits.argmax(dim=1) == labels).sum())

    if not math.isfinite(total_loss):
        raise TrainingError(f"The loss left all bounds in epoch {epoch + 1}: lower the learning rate.")
    return {
        "epoch": epoch + 1,
        "size": stage.size,
        "learning_rate": round(_learning_rate(recipe, epoch + 1), 7),
        "train_loss": round(total_loss / steps, 5),
        "train_accuracy": round(correct / (steps * recipe.batch_size), 5),
        "seconds": round(time.perf_counter() - started, 1),
        "validation_loss": "",
        "validation_accuracy": "",
    }


def _targets(run: Run, values: torch.Tensor, labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Return what to learn, `(N, C)` probabilities: smoothed labels, blended with the teacher's opinion."""
    smoothing = run.recipe.label_smoothing
    target = F.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes
    if run.teach is not None:
        target = torch.lerp(target, run.teach(values), run.recipe.teacher_weight)
    return target


def _conclude(bundle: Bundle, history: Path, validation: TileSet) -> Bundle:
    """Measure the bundle as it ships, in half-precision weights; note that in its card and the report."""
    evaluation = evaluate_tiles(bundle, validation)
    write_report(bundle.path, history, evaluation, validation)
    return rewrite_card(bundle, metrics={"split": "validation", **evaluation.summary()})


def _learning_rate(recipe: Recipe, epoch: float) -> float:
    """Linear warm-up, then half a cosine down to zero; `epoch` may be fractional."""
    if epoch < recipe.warmup_epochs:
        return recipe.learning_rate * max(epoch, 0.01) / recipe.warmup_epochs
    progress = (epoch - recipe.warmup_epochs) / (recipe.epochs - recipe.warmup_epochs)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Decay kernels and matrices only: pulling biases and batch-norm scales to zero harms."""
    decayed = [p for p in network.parameters() if p.dim() > 1]
    others = [p for p in network.parameters() if p.dim() <= 1]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=0.9, nesterov=True, fused=True)


def _load_teacher(
    recipe: Recipe, card: ModelCard, device: torch.device
) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Return what maps training values (N, B, T, T) to the teacher's probabilities (N, C).

    Raises TrainingError if the teacher knows other classes or takes other tiles than the student `card`.
    """
    if recipe.teacher is None:
        return None
    bundle = load_bundle(recipe.teacher)
    for what in ("classes", "bands", "level", "scaling", "gsd", "tile_size"):
        if getattr(bundle.card, what) != getattr(card, what):
            raise TrainingError(
                f"The teacher '{recipe.teacher}' has other {what.replace('_', ' ')} than the training tiles."
            )
    network = bundle.load_network().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    forward = torch.compile(network, dynamic=False) if recipe.compile else network
    mean, std = standardisation(bundle.card, device)

    @torch.no_grad()
    def teach(values: torch.Tensor) -> torch.Tensor:
        x = ((values - mean) / std).contiguous(memory_format=torch.channels_last)
        with _autocast(recipe, device):
            return torch.softmax(forward(x).float(), dim=1)

    return teach


def _autocast(recipe: Recipe, device: torch.device) -> AbstractContextManager[Any]:
    # Half precision with a short exponent (old GPUs) would need its loss scaled: those train in single.
    half = find_precision(recipe.precision, device) is torch.bfloat16
    return torch.autocast(device.type, torch.bfloat16, enabled=half)


def _evaluation(logits: torch.Tensor, tiles: TileSet) -> Evaluation:
    return Evaluation(torch.softmax(logits, 1).numpy(), tiles.labels.numpy(), tiles.classes, tiles.names)


def _describe(recipe: Recipe, training: TileSet, split: Split) -> ModelCard:
    mean, std = recipe.mean, recipe.std
    if mean is None or std is None:
        pixels = training.images[:: max(1, len(training) // 2000)].double()
        mean = tuple(round(float(m), 3) for m in pixels.mean(dim=(0, 2, 3)))
        std = tuple(round(float(s), 3) for s in pixels.std(dim=(0, 2, 3)))
    # Where files lay on this machine is nobody's business: names say enough.
    files = {
        key: Path(value).name for key in ("initial_weights", "teacher") if (value := getattr(recipe, key))
    }
    return ModelCard(
        name=recipe.name,
        architecture=recipe.architecture,
        head=recipe.head,
        bands=recipe.bands,
        level=recipe.level,
        scaling=recipe.scaling,
        mean=mean,
        std=std,
        tile_size=training.images.shape[-1],
        gsd=recipe.gsd,
        classes=number_classes(training.classes),
        training={
            "recipe": recipe.to_dict() | files,
            "tiles": len(training),
            "split": split.method,
            "torch": torch.__version__,
        },
        license=recipe.license,
    )


def _finish_card(card: ModelCard, logits: torch.Tensor, validation: TileSet, epoch: int) -> ModelCard:
    temperature = fit_temperature(logits, validation.labels)
    evaluation = _evaluation(logits / temperature, validation)
    return replace(
        card,
        temperature=round(temperature, 4),
        metrics={"split": "validation", **evaluation.summary()},
        training={**card.training, "best_epoch": epoch + 1},
    )


def _append_history(path: Path, row: dict[str, Any]) -> None:
    new = not path.is_file()
    with path.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def _trim_history(path: Path, epochs: int) -> None:
    """Drop what was written after the last checkpoint: those epochs come again."""
    if path.is_file():
        header, *rows = path.read_text(encoding="utf-8").splitlines(keepends=True)
        write_file(path, "".join([header, *rows[:epochs]]).encode("utf-8"))


def _save_checkpoint(path: Path, run: Run) -> None:
    partial = path.with_suffix(".partial")
    try:
        torch.save(
            {
                "recipe": run.recipe.to_dict(),
                "network": run.network.state_dict(),
                "average": run.average.state_dict(),
                "optimizer": run.optimizer.state_dict(),
                "progress": vars(run.progress),
            },
            partial,
        )
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise OutputError(f"The checkpoint {path} cannot be written: {error}.") from error


def _load_checkpoint(path: Path, run: Run) -> None:
    """Set the run to where the checkpoint was written; raises TrainingError if it is another recipe's."""
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise TrainingError(f"The checkpoint {path} is damaged: train without --resume.") from error
    then, now = state["recipe"], run.recipe.to_dict()
    if then != now:
        changed = min(key for key in then.keys() | now.keys() if then.get(key) != now.get(key))
        raise TrainingError(
            f"The checkpoint {path} is of another recipe ('{changed}' differs): "
            "give another output folder or train without --resume."
        )
    run.network.load_state_dict(state["network"])
    run.average.load_state_dict(state["average"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.progress = Progress(**state["progress"])
