"""The report beside a model: how training went, what the network confuses, and how its errors look."""

import csv
import io
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipeline.outputs.atomic import make_folder, write_files
from pipeline.training.dataset import TileSet
from pipeline.training.evaluate import Evaluation

COLUMNS = 6
SAMPLE_ROWS = 2  # of tiles drawn at random: what is usual
MISTAKE_ROWS = 3  # of the most confident mistakes: what is wrong with the network, or with the labels
TRAINING_COLOR, VALIDATION_COLOR = "#5c5c66", "#d6393c"


def write_report(output: Path, history: Path | None, evaluation: Evaluation, tiles: TileSet) -> None:
    """Write the scores and the plots of an evaluation into the folder `output`, which is made if need be.

    `report.json` (the evaluation's summary), `confusion_matrix.png`, `sample_predictions.png` of `tiles`,
    which are those evaluated, in the same order, and, where there is a `history` as `train` writes it,
    `accuracy_loss.png`. All or none of them appear. Raises OutputError if they cannot be written.
    """
    make_folder(output)
    files = {
        output / "report.json": (json.dumps(evaluation.summary(), indent=2) + "\n").encode("utf-8"),
        output / "confusion_matrix.png": _png(_plot_confusion(evaluation)),
        output / "sample_predictions.png": _png(_plot_samples(evaluation, tiles)),
    }
    if history is not None:
        files[output / "accuracy_loss.png"] = _png(_plot_history(history))
    write_files(files)


def _plot_history(history: Path) -> Figure:
    with history.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    for axes, quantity in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        for part, color in (("train", TRAINING_COLOR), ("validation", VALIDATION_COLOR)):
            # Validation may come every few epochs only.
            points = [(int(r["epoch"]), float(r[key])) for r in rows if r[key := f"{part}_{quantity}"]]
            label = "training (varied tiles)" if part == "train" else "validation"
            axes.plot(*zip(*points, strict=True), color=color, label=label, marker="o", markersize=3)
        _mark_stages(axes, rows)
        axes.set(xlabel="epoch", ylabel=quantity)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def _mark_stages(axes: Axes, rows: list[dict[str, str]]) -> None:
    """Draw a line where the size of the training pieces changes."""
    for before, after in pairwise(rows):
        if before["size"] != after["size"]:
            axes.axvline(int(after["epoch"]) - 0.5, color="#bbbbbb", linestyle="--", linewidth=1)


def _plot_confusion(evaluation: Evaluation) -> Figure:
    counts = evaluation.confusion()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    n = len(evaluation.classes)
    side = 3.5 + 0.5 * n
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(counts):
        color = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=color, fontsize=8)
    axes.set_xticks(range(n), evaluation.classes, rotation=45, ha="right")
    axes.set_yticks(range(n), evaluation.classes)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(f"{len(evaluation.labels)} tiles, accuracy {evaluation.accuracy:.2%}")
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    return figure


def _plot_samples(evaluation: Evaluation, tiles: TileSet) -> Figure:
    confidence, wrong = evaluation.probabilities.max(axis=1), evaluation.predicted != evaluation.labels
    drawn = np.random.default_rng(0).permutation(len(tiles))[: COLUMNS * SAMPLE_ROWS]
    mistakes = np.flatnonzero(wrong)
    mistakes = mistakes[np.argsort(-confidence[mistakes])][: COLUMNS * MISTAKE_ROWS]
    groups = [("Drawn at random", np.sort(drawn)), ("The most confident mistakes", mistakes)]
    groups = [(title, chosen) for title, chosen in groups if len(chosen)]
    heights = [-(-len(chosen) // COLUMNS) for _, chosen in groups]

    figure = Figure(figsize=(COLUMNS * 2, sum(heights) * 2.5 + 0.5 * len(groups)), layout="constrained")
    panels = figure.subfigures(len(groups), 1, squeeze=False, height_ratios=heights).ravel()
    for panel, height, (title, chosen) in zip(panels, heights, groups, strict=True):
        panel.suptitle(title, fontweight="bold")
        grid = panel.subplots(height, COLUMNS, squeeze=False).ravel()
        for axes in grid:
            axes.axis("off")
        for axes, i in zip(grid, chosen, strict=False):
            axes.imshow(tiles.images[i].permute(1, 2, 0).numpy(), interpolation="nearest")
            axes.set_title(
                f"{evaluation.classes[evaluation.predicted[i]]} {confidence[i]:.0%}\n"
                f"true: {evaluation.classes[evaluation.labels[i]]}",
                fontsize=8,
                color="#b00020" if wrong[i] else "black",
            )
    return figure


def _png(figure: Figure) -> bytes:
    """Render without pyplot, whose figures are global and would need closing."""
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream)
    return stream.getvalue()
