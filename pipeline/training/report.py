"""The report beside a model: how training went, what it confuses, how sure it is, how robust it is.

The same measurements in three forms: `report.json` for programs, pictures for slides, and `report.html`.
"""

import json
from pathlib import Path
from typing import Any

from pipeline.files import make_folder, write_files
from pipeline.model.card import ModelCard
from pipeline.training.dataset import TileSet
from pipeline.training.evaluate import Evaluation
from pipeline.training.page import Measurements, render_page
from pipeline.training.plots import plot_confusion, plot_history, plot_reliability, plot_samples, to_png


def write_report(
    output: Path,
    history: Path | None,
    evaluation: Evaluation,
    tiles: TileSet,
    card: ModelCard,
    measurements: Measurements = Measurements(),
) -> None:
    """Write the scores and plots of an evaluation into the folder `output`, which is created if necessary.

    `tiles` are those evaluated, in the same order; `history` is the file that `train` writes. The folder gets
    `report.json`, `report.html`, `confusion_matrix.png`, `sample_predictions.png`, `reliability.png` and,
    with a history, `accuracy_loss.png`: all of them or none.

    Raises:
        OutputError: they cannot be written.
    """
    make_folder(output)
    pictures = {
        "confusion_matrix": to_png(plot_confusion, evaluation),
        "reliability": to_png(plot_reliability, evaluation),
    }
    if history is not None:
        pictures["accuracy_loss"] = to_png(plot_history, history)
    page = render_page(evaluation, tiles, card, measurements, pictures)
    pictures["sample_predictions"] = to_png(plot_samples, evaluation, tiles)
    document = report_json(evaluation, card, measurements)
    write_files(
        {
            **{output / f"{name}.png": picture for name, picture in pictures.items()},
            output / "report.json": (json.dumps(document, indent=2) + "\n").encode("utf-8"),
            output / "report.html": page.encode("utf-8"),
        }
    )


def report_json(
    evaluation: Evaluation, card: ModelCard, measurements: Measurements = Measurements()
) -> dict[str, Any]:
    """Return everything that was measured as plain values for JSON."""
    document: dict[str, Any] = {
        "model": card.name,
        "digest": card.digest,
        **evaluation.summary(),
        "calibration": evaluation.calibration.to_json(),
    }
    if measurements.tta:
        document["test_time_augmentation"] = measurements.tta.to_json()
    if measurements.robustness:
        document["robustness"] = [condition.to_json() for condition in measurements.robustness]
    if measurements.outliers:
        document["outliers"] = [outlier.to_json() for outlier in measurements.outliers]
    return document
