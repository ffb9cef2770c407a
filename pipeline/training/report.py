"""The report beside a model: how training went, what it confuses, how sure it is, what scenes do to it.

The same measurements three times: `report.json` for programs, pictures for slides, and `report.html`, one
page that needs nothing else and can be sent to somebody.
"""

import base64
import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import yaml
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from pipeline.files import make_folder, write_files
from pipeline.model.card import ModelCard
from pipeline.training.dataset import TileSet
from pipeline.training.evaluate import Evaluation, TtaGain
from pipeline.training.robustness import POINTS_TO_LOSE, Condition, Outlier
from pipeline.values import DIGITAL_NUMBERS, EUROSAT_RGB_SCALING, NATURAL_COLOR

COLUMNS = 6  # of the picture of sample predictions
SAMPLES = 18  # of each kind
CONFUSIONS = 6  # that are named
WIDTH = 5.8  # inches: at a phone's width the letters of a picture are still as large as the page's
DPI = 150  # sharp on a phone, whose pixels are small
TRAINING_COLOR, VALIDATION_COLOR, FAIR_COLOR = "#5c5c66", "#d6393c", "#1b6e3c"


@dataclass(frozen=True)
class Measurements:
    """What may have been measured beside the evaluation; what was not is left out of the report."""

    tta: TtaGain | None = None
    robustness: tuple[Condition, ...] = ()
    outliers: tuple[Outlier, ...] = ()


def write_report(
    output: Path,
    history: Path | None,
    evaluation: Evaluation,
    tiles: TileSet,
    card: ModelCard,
    measurements: Measurements = Measurements(),
) -> None:
    """Write the scores and the plots of an evaluation into the folder `output`, which is made if need be.

    `tiles` are those evaluated, in the same order; `history` is as `train` writes it. The folder gets
    `report.json`, `report.html`, `confusion_matrix.png`, `sample_predictions.png`, `reliability.png` and,
    with a history, `accuracy_loss.png`. All or none of them appear. Raises OutputError if they cannot be
    written.
    """
    make_folder(output)
    pictures = {
        "confusion_matrix": _png(_plot_confusion, evaluation),
        "reliability": _png(_plot_reliability, evaluation),
    }
    if history is not None:
        pictures["accuracy_loss"] = _png(_plot_history, history)
    page = _render(evaluation, tiles, card, measurements, pictures)
    pictures["sample_predictions"] = _png(_plot_samples, evaluation, tiles)
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
    """Return all that was measured as plain values for JSON."""
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


# --- what is shown -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """A tile as it is shown: its (T, T, 3) uint8 picture, and what it is taken for."""

    picture: np.ndarray
    name: str
    true: str
    predicted: str
    confidence: float

    @property
    def right(self) -> bool:
        """Return whether it was taken for what it is."""
        return self.true == self.predicted


def choose_samples(evaluation: Evaluation, tiles: TileSet) -> dict[str, list[Sample]]:
    """Return samples under their title: right ones of every class in turn, and the surest mistakes."""
    confidence, wrong = evaluation.confidence, evaluation.predicted != evaluation.labels
    mistakes = np.flatnonzero(wrong)
    chosen = {
        "Right, drawn at random from every class": _draw_from_every_class(evaluation.labels, ~wrong),
        "The most confident mistakes": mistakes[np.argsort(-confidence[mistakes], kind="stable")],
    }
    return {
        title: [
            Sample(
                picture=_picture(tiles, i),
                name=evaluation.names[i],
                true=evaluation.classes[evaluation.labels[i]],
                predicted=evaluation.classes[evaluation.predicted[i]],
                confidence=float(confidence[i]),
            )
            for i in indices[:SAMPLES]
        ]
        for title, indices in chosen.items()
        if len(indices)
    }


def _draw_from_every_class(labels: np.ndarray, eligible: np.ndarray) -> np.ndarray:
    """Return the indices of all eligible tiles: one of each class at random, then another of each, ..."""
    shuffled = np.random.default_rng(0).permutation(np.flatnonzero(eligible))
    seen = np.zeros(labels.max() + 1, int)
    turn = np.empty(len(shuffled), int)
    for position, i in enumerate(shuffled):
        turn[position] = seen[labels[i]]
        seen[labels[i]] += 1
    return shuffled[np.lexsort((labels[shuffled], turn))]


def _picture(tiles: TileSet, i: int) -> np.ndarray:
    """Return a tile as (T, T, 3) uint8: as it is, in natural colours, or its first band in grey."""
    pixels, bands = tiles.images[i].numpy(), tiles.bands
    if bands is not None and set(NATURAL_COLOR) <= set(bands):
        pixels = pixels[[bands.index(band) for band in NATURAL_COLOR]]
    elif bands is not None or len(pixels) != 3:
        pixels = np.repeat(pixels[:1], 3, axis=0)
    if pixels.dtype != np.uint8:
        values = EUROSAT_RGB_SCALING.to_value(pixels / DIGITAL_NUMBERS)
        pixels = np.rint(values.clip(*EUROSAT_RGB_SCALING.values))
    return pixels.astype(np.uint8).transpose(1, 2, 0)


def _worst_confusions(evaluation: Evaluation) -> list[dict[str, Any]]:
    counts = evaluation.confusion()
    of_class = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:CONFUSIONS]
    pairs = zip(*np.unravel_index(order, counts.shape), strict=True)
    return [
        {
            "true": evaluation.classes[true],
            "predicted": evaluation.classes[predicted],
            "tiles": int(counts[true, predicted]),
            "share": counts[true, predicted] / of_class[true],
        }
        for true, predicted in pairs
        if counts[true, predicted]
    ]


# --- the page ------------------------------------------------------------------------------------------


def _render(
    evaluation: Evaluation,
    tiles: TileSet,
    card: ModelCard,
    measurements: Measurements,
    pictures: dict[str, bytes],
) -> str:
    samples = {
        title: [(sample, _data_uri(_encode(sample.picture))) for sample in group]
        for title, group in choose_samples(evaluation, tiles).items()
    }
    return _template().render(
        card=card,
        training=_course_of_training(card.training),
        summary=evaluation.summary(),
        colors={c.name: c.color for c in card.classes},
        confusions=_worst_confusions(evaluation),
        calibration=evaluation.calibration,
        samples=samples,
        pictures={name: _data_uri(picture) for name, picture in pictures.items()},
        measured=measurements,
        limit=POINTS_TO_LOSE,
    )


def _course_of_training(training: dict[str, Any]) -> dict[str, Any]:
    """Return as much as a card tells of how its model was trained: `facts` to list, `recipe` as YAML."""
    recipe = training.get("recipe") or {}
    epochs = sum(stage["epochs"] for stage in recipe.get("stages", ()))
    best, before = training.get("best_epoch"), training.get("before")
    split = training.get("split", "")
    facts = {
        "Tiles to train on": training.get("tiles"),
        "Split": "as the split files say" if split == "files" else split,
        "Best epoch, which is the model": best and (f"{best} of {epochs}" if epochs else best),
        "Started from": recipe.get("initial_weights"),
        "Runs before this one": before and len(before),
    }
    return {
        "facts": {name: value for name, value in facts.items() if value},
        "recipe": yaml.safe_dump(recipe, sort_keys=False) if recipe else "",
    }


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share, digits=1: f"{100 * share:.{digits}f} %"
    return environment.get_template("report.html.jinja")


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _encode(picture: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG", optimize=True)
    return stream.getvalue()


# --- the pictures --------------------------------------------------------------------------------------


def _plot_history(history: Path) -> Figure:
    with history.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    figure = Figure(figsize=(WIDTH, 7), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    for axes, quantity in zip(panels, ("accuracy", "loss"), strict=True):
        for part, color in (("train", TRAINING_COLOR), ("validation", VALIDATION_COLOR)):
            # Validation may come every few epochs only.
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


def _plot_confusion(evaluation: Evaluation) -> Figure:
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


def _plot_reliability(evaluation: Evaluation) -> Figure:
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


def _plot_samples(evaluation: Evaluation, tiles: TileSet) -> Figure:
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


def _png(plot: Callable[..., Figure], *arguments: Any) -> bytes:
    """Render without pyplot, whose figures are global and would need closing.

    Names of classes are names: a dollar in one is no formula.
    """
    stream = io.BytesIO()
    with rc_context({"text.parse_math": False}):
        figure = plot(*arguments)
        figure.set_dpi(DPI)
        FigureCanvasAgg(figure).print_png(stream)
    return stream.getvalue()
