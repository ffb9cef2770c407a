"""Measuring a run's model: after an epoch, to keep the best, and once it is finished."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pipeline.model.bundle import load_bundle, rewrite_card
from pipeline.model.card import ModelCard
from pipeline.model.predictor import Predictor
from pipeline.model.weights import save_bundle
from pipeline.options import PredictorOptions
from pipeline.training.calibration import fit_temperature
from pipeline.training.dataset import TileSet
from pipeline.training.distributed import Team
from pipeline.training.evaluate import Evaluation, evaluate_tiles, evaluate_with
from pipeline.training.history import HISTORY, Row
from pipeline.training.report import write_report
from pipeline.training.run import Run
from pipeline.training.setup import RunTiles


def validate(run: Run, validation: TileSet, epoch: int, output: Path) -> Row:
    """Measure the averaged weights as `classify` would run them, and keep them if they are the best so far.

    The best have the highest accuracy; among equals, the lowest loss.
    """
    options = PredictorOptions(device=str(run.team.device), precision=run.recipe.precision)
    evaluation = evaluate_with(Predictor(run.average.module, run.card, options), validation)
    accuracy, loss, progress = evaluation.accuracy, evaluation.cross_entropy, run.progress
    if progress.best_epoch < 0 or (accuracy, -loss) > (progress.best_accuracy, -progress.best_loss):
        save_bundle(run.average.module, _complete(run.card, evaluation, epoch), output)
        progress.best_accuracy, progress.best_loss, progress.best_epoch = accuracy, loss, epoch
        progress.validations_since = 0
    elif run.recipe.stage_of(epoch) is run.recipe.stages[-1]:
        # Not earlier: patience with a frozen backbone says nothing about the stage that unfreezes it.
        progress.validations_since += 1
    return {"validation_loss": round(loss, 5), "validation_accuracy": round(accuracy, 5)}


def finish(output: Path, tiles: RunTiles, team: Team) -> None:
    """Measure the bundle as it ships, with half-precision weights; write that into its card and the report.

    Figures are those of the report tiles, if there are any: the validation tiles chose the model, and so make
    it look slightly better than it is. Those are then stated beside, under `choose`.
    """
    bundle = load_bundle(output)
    chosen_by = evaluate_tiles(bundle, tiles.validation, device=str(team.device))
    if tiles.report is None:
        measured, evaluation = tiles.validation, chosen_by
        metrics = _metrics("validation", evaluation)
    else:
        measured, evaluation = tiles.report, evaluate_tiles(bundle, tiles.report, device=str(team.device))
        choose = {"tiles": len(chosen_by.labels), "accuracy": round(chosen_by.accuracy, 5)}
        metrics = _metrics("report", evaluation) | {"choose": choose}
    bundle = rewrite_card(bundle, metrics=metrics)
    write_report(output, output / HISTORY, evaluation, measured, bundle.card)


def _metrics(split: str, evaluation: Evaluation) -> dict[str, Any]:
    return {"split": split, **evaluation.summary(), "calibration": evaluation.calibration.errors()}


def _complete(card: ModelCard, evaluation: Evaluation, epoch: int) -> ModelCard:
    """Return the card of the weights just measured, with a temperature that calibrates them."""
    tiny = torch.finfo(torch.float32).tiny
    logits = torch.from_numpy(evaluation.probabilities).clamp(min=tiny).log()  # up to a constant per tile
    return replace(
        card,
        temperature=round(fit_temperature(logits, torch.from_numpy(evaluation.labels)), 4),
        metrics={"split": "validation", **evaluation.summary()},
        training={**card.training, "best_epoch": epoch + 1},
    )
