"""The training loop: a recipe and labelled tiles become a model bundle."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from pipeline.errors import TrainingError
from pipeline.files import make_folder, write_files
from pipeline.model.bundle import CARD, Bundle, load_bundle, rewrite_card
from pipeline.model.card import ModelCard
from pipeline.model.classes import number_classes
from pipeline.model.device import can_compile, find_precision
from pipeline.model.network import build_network, freeze, unfreeze
from pipeline.model.predictor import Predictor
from pipeline.model.weights import save_bundle, standardisation
from pipeline.options import PredictorOptions
from pipeline.training.augment import augment, random_crop
from pipeline.training.calibration import fit_temperature
from pipeline.training.checkpoint import (
    CHECKPOINT,
    Progress,
    Stateful,
    read_checkpoint,
    restore,
    save_checkpoint,
)
from pipeline.training.dataset import TileSet, load_tiles, value_step
from pipeline.training.distributed import Team, join_team
from pipeline.training.evaluate import Evaluation, evaluate_tiles, evaluate_with
from pipeline.training.history import EVENTS, HISTORY, Row, tensorboard, write_history
from pipeline.training.initial_weights import InitialWeights, find_initial_weights, start_from
from pipeline.training.objective import Objective, half_precision
from pipeline.training.recipe import Recipe, Stage
from pipeline.training.report import write_report
from pipeline.training.schedule import build_optimizer, learning_rate_at, set_pace
from pipeline.training.splits import SPLIT_FILES, Split, count_trained_on, known_split, split_tiles

log = logging.getLogger(__name__)

EMA_EVERY = 8  # steps; averaging costs more than the optimizer, and 30 times an epoch is often enough
UNSAVED = 60  # seconds; a GPU's epoch may be shorter than it takes to write a checkpoint
LOSS_SHOWN_EVERY = 10  # steps; a GPU must be waited for to learn it
# Tiles stay in a GPU's memory if they take at most this share of it: gathering them there costs nothing.
TILES_ON_GPU = 0.25


@dataclass
class Run:
    """What one training run works with; `average` holds the weights that are validated and kept."""

    recipe: Recipe
    team: Team
    card: ModelCard
    network: nn.Module
    average: AveragedModel
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    mean: Tensor
    std: Tensor
    objective: Objective
    progress: Progress = field(default_factory=Progress)
    stage: Stage | None = None
    forward: Callable[[Tensor], Tensor] | None = None  # the network as the stage runs it
    saved: float = field(default_factory=time.monotonic)  # when the last checkpoint was

    @property
    def parts(self) -> dict[str, Stateful]:
        """What changes as the run goes on and a checkpoint must hold."""
        names = ("network", "average", "optimizer", "scaler")
        return {name: getattr(self, name) for name in names}


def train(
    data: Path,
    recipe: Recipe,
    output: Path,
    *,
    resume: bool = False,
    split_method: str = "auto",
    skip_unreadable: bool = False,
    events: bool = False,
    device: str = "auto",
) -> Bundle:
    """Train as the recipe says and return the bundle of the epoch with the best validation accuracy.

    `output` gets the bundle, `history.csv` (a row an epoch), the split, the report, and a checkpoint from
    which `resume` continues as if nothing had happened; with `events` also what TensorBoard shows. Without
    `resume`, what an earlier run left there is replaced. `split_method` and `skip_unreadable` are as for
    `split_tiles` and `load_tiles`, `device` as for `find_device`. Under `torchrun`, all its processes train
    one model.

    Raises TrainingError for data, a recipe, a teacher or a checkpoint that cannot be used, ModelError for a
    model that is not there or initial weights of another architecture, UsageError for `events` without the
    package tensorboard, DeviceError for a device that is absent, OutputError if `output` cannot be written:
    what stood there by then stays, and `resume` continues from it.
    """
    with join_team(device) as team, tensorboard(output / EVENTS, events and team.is_first) as add_events:
        checkpoint = _find_checkpoint(output, recipe) if resume else None
        torch.manual_seed(recipe.seed)
        # Before all tiles are read: a name that is mistyped shall not cost minutes.
        initial = find_initial_weights(recipe)
        known = _split_to_keep(recipe, initial)
        split, training, validation = _read_tiles(data, recipe, split_method, known, skip_unreadable)
        _check(recipe, training, validation, team)
        card = _describe(recipe, training, split, initial)
        run = _start(recipe, card, initial, team)
        if team.is_first:
            _prepare_output(output, training, validation, goes_on=checkpoint is not None)
        if checkpoint is not None:
            _go_on(run, checkpoint, output)
        if team.agree(run.progress.epoch) != run.progress.epoch:
            raise TrainingError(
                f"{output / CHECKPOINT} is not the same on all machines: give a folder that they share."
            )

        training = _place(training, team.device)
        for epoch in range(run.progress.epoch, recipe.epochs):
            if recipe.patience and run.progress.validations_since >= recipe.patience:
                log.info("no better for %d validations: that is all", run.progress.validations_since)
                break
            with _want_of_memory_told(run):
                row = _train_epoch(run, training, epoch)
            if team.is_first:
                if (epoch + 1) % recipe.evaluate_every == 0 or epoch + 1 == recipe.epochs:
                    row |= _validate(run, validation, epoch, output)
                _note(run, row, output)
                add_events(row)
            run.progress = team.agree(run.progress)

        best = run.progress.best_epoch
        log.info("best epoch %d: %.4f on validation", best + 1, run.progress.best_accuracy)
        if team.is_first:
            _conclude(output, validation, team)
        team.agree("concluded")  # the others wait for it
        return load_bundle(output)


def _read_tiles(
    data: Path, recipe: Recipe, split_method: str, known: Split | None, skip_unreadable: bool
) -> tuple[Split, TileSet, TileSet]:
    """Return the split, the tiles to train on and those to validate on."""
    split = split_tiles(
        data, validation_share=recipe.validation_share, seed=recipe.seed, method=split_method, known=known
    )
    training, validation = (
        load_tiles(data, names, bands=recipe.bands, skip_unreadable=skip_unreadable)
        for names in (split.train, split.validation)
    )
    if known is not None and (seen := count_trained_on(split.validation, known)):
        log.warning(
            "The model that training starts from, or is taught by, was trained on %d of the %d tiles to "
            "validate on, so accuracy will look better than it is. `split` auto takes that model's split, "
            "where no split files are in the data folder.",
            seen,
            len(split.validation),
        )
    return split, training, validation


def _go_on(run: Run, checkpoint: dict[str, Any], output: Path) -> None:
    """Bring the run to where the checkpoint was written, and the history with it."""
    run.progress = restore(checkpoint, run.parts)
    log.info("going on after epoch %d", run.progress.epoch)
    if run.team.is_first:
        write_history(output / HISTORY, run.progress.history)


@contextmanager
def _want_of_memory_told(run: Run) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"The memory of {run.team.device} does not hold a batch of "
            f"{run.recipe.batch_size // run.team.size}: lower the recipe's batch_size, and its learning_rate "
            "with it, or use more GPUs."
        ) from error


def _train_epoch(run: Run, training: TileSet, epoch: int) -> Row:
    """Go once through the training tiles and return the epoch's row of the history."""
    recipe, team, stage = run.recipe, run.team, run.recipe.stage_of(epoch)
    forward = _enter(run, stage)
    # Seeded by epoch and process alone: a resumed run draws what an unbroken one would have drawn.
    order = torch.randperm(len(training), generator=_generator(recipe, epoch))
    generator = _generator(recipe, epoch, 1 + team.rank)
    torch.manual_seed(generator.initial_seed())  # dropout and mixing draw from the global numbers
    steps = len(training) // recipe.batch_size
    started, sums = time.perf_counter(), torch.zeros(2, device=team.device)  # of losses, of right answers

    bar = tqdm(
        range(steps),
        f"epoch {epoch + 1}/{recipe.epochs}",
        disable=None if team.is_first else True,
        leave=False,
    )
    for step in bar:
        chosen = team.share(order[step * recipe.batch_size : (step + 1) * recipe.batch_size])
        values, labels = _gather(training, chosen, recipe, team.device)
        values = augment(values, recipe.augment, recipe.scaling, generator)
        values, targets, labels = run.objective(values, labels)
        x = (random_crop(values, stage.size, generator) - run.mean) / run.std
        with half_precision(recipe, team.device):
            logits = forward(x.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), targets)
        run.scaler.scale(loss).backward()
        run.scaler.unscale_(run.optimizer)
        nn.utils.clip_grad_norm_(run.network.parameters(), recipe.gradient_clip)
        set_pace(run.optimizer, recipe, epoch + step / steps)
        run.scaler.step(run.optimizer)
        run.scaler.update()
        run.optimizer.zero_grad(set_to_none=True)
        if team.is_first and (step % EMA_EVERY == 0 or step + 1 == steps):
            run.average.update_parameters(run.network)
        of_a_class = (labels >= 0).sum().clamp(min=1)  # outliers are of none
        right = (logits.argmax(dim=1) == labels).sum() / of_a_class
        sums += torch.stack([loss.detach(), right])
        if step % LOSS_SHOWN_EVERY == 0 and not bar.disable:
            bar.set_postfix(loss=f"{float(sums[0]) / (step + 1):.3f}")

    mean_loss, accuracy = (team.total(sums) / (steps * team.size)).tolist()
    if not math.isfinite(mean_loss):
        raise TrainingError(f"The loss left all bounds in epoch {epoch + 1}: lower the learning rate.")
    return {
        "epoch": epoch + 1,
        "size": stage.size,
        "learning_rate": round(learning_rate_at(recipe, epoch + 1), 9),
        "train_loss": round(mean_loss, 5),
        "train_accuracy": round(accuracy, 5),
        "seconds": round(time.perf_counter() - started, 1),
        "validation_loss": "",
        "validation_accuracy": "",
    }


def _validate(run: Run, validation: TileSet, epoch: int, output: Path) -> Row:
    """Measure the averaged weights as `classify` would run them, and keep them if they are the best so far.

    The best have the highest accuracy and, among those, the lowest loss.
    """
    options = PredictorOptions(device=str(run.team.device), precision=run.recipe.precision)
    evaluation = evaluate_with(Predictor(run.average.module, run.card, options), validation)
    accuracy, loss, progress = evaluation.accuracy, evaluation.cross_entropy, run.progress
    if progress.best_epoch < 0 or (accuracy, -loss) > (progress.best_accuracy, -progress.best_loss):
        save_bundle(run.average.module, _finish(run.card, evaluation, epoch), output)
        progress.best_accuracy, progress.best_loss, progress.best_epoch = accuracy, loss, epoch
        progress.validations_since = 0
    elif run.recipe.stage_of(epoch) is run.recipe.stages[-1]:
        # Not before: patience with a frozen backbone says nothing of the stage that unfreezes it.
        progress.validations_since += 1
    return {"validation_loss": round(loss, 5), "validation_accuracy": round(accuracy, 5)}


def _note(run: Run, row: Row, output: Path) -> None:
    """Write down that an epoch is done; what a kill leaves half-written is written anew by `resume`."""
    log.info("%s", "  ".join(f"{key} {value}" for key, value in row.items()))
    run.progress.epoch = row["epoch"]
    run.progress.history.append(row)
    validated = row["validation_loss"] != ""
    if validated or time.monotonic() - run.saved > UNSAVED:
        save_checkpoint(output / CHECKPOINT, run.recipe, run.parts, run.progress)
        run.saved = time.monotonic()
    write_history(output / HISTORY, run.progress.history)


def _conclude(output: Path, validation: TileSet, team: Team) -> None:
    """Measure the bundle as it ships, in half-precision weights; note that in its card and the report."""
    bundle = load_bundle(output)
    evaluation = evaluate_tiles(bundle, validation, device=str(team.device))
    metrics = {"split": "validation", **evaluation.summary(), "calibration": evaluation.calibration.errors()}
    bundle = rewrite_card(bundle, metrics=metrics)
    write_report(output, output / HISTORY, evaluation, validation, bundle.card)


def _split_to_keep(recipe: Recipe, initial: InitialWeights | None) -> Split | None:
    """Return the split of the model that training starts from or, without one, is taught by."""
    teacher = load_bundle(recipe.teacher) if recipe.teacher is not None else None
    if initial is not None and initial.split is not None:
        return initial.split
    return known_split(teacher.path) if teacher is not None else None


def _find_checkpoint(output: Path, recipe: Recipe) -> dict[str, Any] | None:
    """Return the checkpoint to go on from; None if the run was ended before its first one."""
    path = output / CHECKPOINT
    if path.is_file():
        return read_checkpoint(path, recipe)
    if (output / CARD).is_file() and (output / HISTORY).is_file():  # so there was one once
        raise TrainingError(
            f"{output} holds a model and no {CHECKPOINT} to go on from: begin anew with `overwrite`, or "
            "elsewhere, from this model's weights, by naming it as the recipe's initial_weights."
        )
    return None


def _check(recipe: Recipe, training: TileSet, validation: TileSet, team: Team) -> None:
    """Raise TrainingError for tiles that the recipe cannot be followed with."""
    if not 2 <= len(training.classes) <= 255:
        raise TrainingError(f"There are {len(training.classes)} classes; a map can tell 2 to 255 apart.")
    if len(training) < recipe.batch_size:
        raise TrainingError(f"{len(training)} training tiles do not fill a batch of {recipe.batch_size}.")
    if recipe.batch_size % team.size or recipe.batch_size < 2 * team.size:  # batch norm needs two
        raise TrainingError(
            f"The recipe's batch_size {recipe.batch_size} cannot be shared out evenly among {team.size} "
            "processes, with two tiles or more for each: change it or --nproc-per-node."
        )
    size = training.images.shape[-1]
    if validation.images.shape[-1] != size:
        raise TrainingError(
            f"Training tiles are {size} pixels wide and validation tiles {validation.images.shape[-1]}."
        )
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


def _start(recipe: Recipe, card: ModelCard, initial: InitialWeights | None, team: Team) -> Run:
    """Build all that a run needs, at epoch 0."""
    mean, std = standardisation(card, team.device)
    network = build_network(
        recipe.architecture,
        bands=len(recipe.bands),
        classes=len(card.classes),
        head=recipe.head,
        dropout=recipe.dropout,
        stem=recipe.stem,
        upsample=recipe.upsample,
    )
    if initial is not None:
        start_from(initial, network, card)
    network.to(team.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = AveragedModel(
        network, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay**EMA_EVERY), use_buffers=True
    )
    float16 = find_precision(recipe.precision, team.device) is torch.float16
    return Run(
        recipe=recipe,
        team=team,
        card=card,
        network=network,
        average=average.eval(),
        optimizer=build_optimizer(network, recipe, fused=not float16),
        # Gradients can be too small for float16; bfloat16 has the range of float32.
        scaler=torch.amp.GradScaler(team.device.type, enabled=float16),
        mean=mean,
        std=std,
        objective=Objective(recipe, card, team),
    )


def _enter(run: Run, stage: Stage) -> Callable[[Tensor], Tensor]:
    """Return the network as the stage runs it, prepared where the stage is a new one."""
    if run.forward is None or stage != run.stage:
        (freeze if stage.freeze else unfreeze)(run.network)
        forward = run.team.join_gradients(run.network)
        compiles = run.recipe.compile and can_compile(run.team.device)
        run.forward = torch.compile(forward, dynamic=False) if compiles else forward
        run.stage = stage
    return run.forward


def _generator(recipe: Recipe, epoch: int, stream: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed((recipe.seed * 100_003 + epoch) * 1009 + stream)


def _place(tiles: TileSet, device: torch.device) -> TileSet:
    """Return the tiles where batches are gathered fastest."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if tiles.images.nbytes <= TILES_ON_GPU * free:
            return replace(tiles, images=tiles.images.to(device))
    return tiles


def _gather(tiles: TileSet, chosen: Tensor, recipe: Recipe, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the chosen tiles' training values (n, B, T, T) float32 and labels (n,), on the device."""
    images = tiles.images[chosen.to(tiles.images.device, non_blocking=True)].to(device, non_blocking=True)
    return _values(images, recipe), tiles.labels[chosen].to(device, non_blocking=True)


def _values(images: Tensor, recipe: Recipe) -> Tensor:
    """Return stored pixels as float32 training values."""
    gain, bias = value_step(images, recipe.scaling)
    return images.float().mul_(gain).add_(bias).clamp_(*recipe.scaling.values)


def _prepare_output(output: Path, training: TileSet, validation: TileSet, *, goes_on: bool) -> None:
    """Make the folder ready: see that a run to go on with had these tiles, or clear it of an earlier one."""
    make_folder(output)
    files: dict[Path, bytes | memoryview] = {
        output / name: ("\n".join(tiles.names) + "\n").encode("utf-8")
        for name, tiles in zip(SPLIT_FILES, (training, validation), strict=True)
    }
    if not goes_on:
        for name in (CHECKPOINT, HISTORY, CARD):  # a card beside another run's split would mislead
            (output / name).unlink(missing_ok=True)
        write_files(files)
    elif any(not path.is_file() or path.read_bytes() != lines for path, lines in files.items()):
        raise TrainingError(
            f"The run in {output} was begun with other tiles: "
            "give another output folder, or begin anew with `overwrite` in place of `resume`."
        )


def _describe(recipe: Recipe, training: TileSet, split: Split, initial: InitialWeights | None) -> ModelCard:
    mean, std = _standards(recipe, training, initial)
    # Where files lay on this machine is nobody's business: names say enough.
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


def _standards(
    recipe: Recipe, training: TileSet, initial: InitialWeights | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per band: the recipe's, the initial bundle's or the tiles' own."""
    if recipe.mean is not None and recipe.std is not None:
        return recipe.mean, recipe.std
    source = initial.card if initial is not None else None
    if source is not None and (source.bands, source.scaling) == (recipe.bands, recipe.scaling):
        return source.mean, source.std  # the weights expect them
    some = _values(training.images[:: max(1, len(training) // 2000)], recipe)
    std, mean = torch.std_mean(some, dim=(0, 2, 3))
    if flat := [(band, m) for band, m, s in zip(recipe.bands, mean, std, strict=True) if s == 0]:
        raise TrainingError(
            f"Clipped to the recipe's scaling, band {flat[0][0]} is {flat[0][1]:.0f} all over in training "
            "tiles: leave it out of 'bands', or set 'scaling' to what the tiles hold."
        )
    return tuple(map(_six_digits, mean.tolist())), tuple(map(_six_digits, std.tolist()))


def _six_digits(value: float) -> float:
    """Round to what a card shows; to decimals would make 0 of what a recipe scales to small values."""
    return float(f"{value:.6g}")


def _finish(card: ModelCard, evaluation: Evaluation, epoch: int) -> ModelCard:
    """Return the card of the weights just measured, with a temperature that calibrates them."""
    tiny = torch.finfo(torch.float32).tiny
    logits = torch.from_numpy(evaluation.probabilities).clamp(min=tiny).log()  # as good as the network's
    return replace(
        card,
        temperature=round(fit_temperature(logits, torch.from_numpy(evaluation.labels)), 4),
        metrics={"split": "validation", **evaluation.summary()},
        training={**card.training, "best_epoch": epoch + 1},
    )
