"""The report's pictures, drawn with matplotlib."""

import csv
import io
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipeline.training.dataset import TileSet
from pipeline.training.evaluate import Evaluation
from pipeline.training.samples import choose_samples

COLUMNS = 6
"""Of the picture of sample predictions."""

WIDTH = 5.8
"""Inches: at a phone's width a picture's letters are still as large as the page's."""

DPI = 150
"""Sharp on a phone, whose pixels are small."""

TRAINING_COLOR, VALIDATION_COLOR, FAIR_COLOR = "#5c5c66", "#d6393c", "#1b6e3c"


def plot_history(history: Path) -> Figure:
    """Plot accuracy and loss against epochs, from the CSV file that `train` writes."""
    with history.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    figure = Figure(figsize=(WIDTH, 7), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    for axes, quantity in zip(panels, ("accuracy", "loss"), strict=True):
        for part, color in (("train", TRAINING_COLOR), ("validation", VALIDATION_COLOR)):
            # Validation may be done in some epochs only.
            points = [(int(r["epoch"]), float(r[key])) for r in rows if r[key := f"{part}_{quantity}"]]
            label = "training (varied tiles)" if part == "train" else "validation"
            marker = "o" if len(points) < 60 else None
            axes.plot(*zip(*points, strict=True), color=color, label=label, marker=marker, markersize=3)
        _mark_stages(axes, rows)
        axes.set(ylabel=quantity)
        axes.grid(alpha=0.3)
        axes.legend()
    panels[-1].set(xlabel="epoch")
    panels[-1].xaxis.get_major_locator().set_params(integer=True)
    return figure


def _mark_stages(axes: Axes, rows: list[dict[str, str]]) -> None:
    """Draw a line where the size of the training pieces changes."""
    for before, after in pairwise(rows):
        if before["size"] != after["size"]:
            axes.axvline(int(after["epoch"]) - 0.5, color="#bbbbbb", linestyle="--", linewidth=1)


def plot_confusion(evaluation: Evaluation) -> Figure:
    """Plot the confusion matrix."""
    counts = evaluation.confusion()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    n = len(evaluation.classes)
    side = max(WIDTH, 2 + 0.4 * n)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(counts):
        color = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=color, fontsize=9)
    axes.set_xticks(range(n), evaluation.classes, rotation=45, ha="right")
    axes.set_yticks(range(n), evaluation.classes)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(f"{len(evaluation.labels)} tiles, accuracy {evaluation.accuracy:.2%}")
    return figure


def plot_reliability(evaluation: Evaluation) -> Figure:
    """Plot accuracy against confidence, before and after the temperature, and a histogram of confidence."""
    calibration = evaluation.calibration
    curves = (
        ("before: temperature 1", calibration.before, TRAINING_COLOR, "o"),
        (f"after: temperature {calibration.temperature:g}", calibration.after, VALIDATION_COLOR, "s"),
        ("after, fitted on other tiles", calibration.cross_fitted, FAIR_COLOR, "^"),
    )
    figure = Figure(figsize=(WIDTH, 6.6), layout="constrained")
    axes, histogram = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    axes.plot((0, 1), (0, 1), color="#bbbbbb", linestyle="--", linewidth=1)
    for label, curve, color, marker in curves:
        there = curve.tiles > 0
        sizes = 10 + 120 * np.sqrt(curve.tiles[there] / curve.tiles.sum())
        x, y = curve.confidence[there], curve.accuracy[there]
        axes.plot(x, y, color=color, linewidth=1)
        axes.scatter(x, y, sizes, color=color, marker=marker, label=f"{label} (error {curve.error:.2%})")
    axes.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    figure.legend(loc="outside upper left", frameon=False)
    axes.grid(alpha=0.3)
    bins = calibration.after.tiles
    histogram.bar((np.arange(len(bins)) + 0.5) / len(bins), bins, 0.9 / len(bins), color=VALIDATION_COLOR)
    histogram.set(xlabel="confidence", ylabel="tiles", yscale="log")
    histogram.yaxis.set_major_formatter(lambda tiles, _: f"{tiles:g}")  # the default one is a formula
    return figure


def plot_samples(evaluation: Evaluation, tiles: TileSet) -> Figure:
    """Plot sample predictions."""
    groups = choose_samples(evaluation, tiles)
    heights = [-(-len(group) // COLUMNS) for group in groups.values()]
    figure = Figure(figsize=(COLUMNS * 2, sum(heights) * 2.6 + 0.5 * len(groups)), layout="constrained")
    panels = figure.subfigures(len(groups), 1, squeeze=False, height_ratios=heights).ravel()
    for panel, height, (title, group) in zip(panels, heights, groups.items(), strict=True):
        panel.suptitle(title, fontweight="bold")
        grid = panel.subplots(height, COLUMNS, squeeze=False).ravel()
        for axes in grid:
            axes.axis("off")
        for axes, sample in zip(grid, group, strict=False):
            axes.imshow(sample.picture, interpolation="nearest")
            axes.set_title(
                f"{sample.predicted} {sample.confidence:.0%}\ntrue: {sample.true}",
                fontsize=8,
                color="black" if sample.right else "#b00020",
            )
    return figure


def to_png(plot: Callable[..., Figure], *arguments: Any) -> bytes:
    """Draw a figure and return it as PNG.

    Pyplot is not used: its figures are global and have to be closed. A dollar sign in a class name does not
    start a formula.
    """
    stream = io.BytesIO()
    with rc_context({"text.parse_math": False}):
        figure = plot(*arguments)
        figure.set_dpi(DPI)
        FigureCanvasAgg(figure).print_png(stream)
    return stream.getvalue()
