"""Measuring a network on labelled tiles: predictions, accuracy, per-class scores."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from tqdm import tqdm

from pipeline.errors import TrainingError
from pipeline.model.bundle import Bundle
from pipeline.model.card import ModelCard
from pipeline.model.predictor import Predictor
from pipeline.model.weights import load_network
from pipeline.options import PredictorOptions
from pipeline.training.calibration import Calibration, calibrate, cross_entropy, reliability
from pipeline.training.dataset import TileSet, load_tiles, value_step
from pipeline.values import PixelTransform

PART = 2048
"""Tiles predicted at a time: enough for a GPU's batch, few enough for the progress bar to move."""


@dataclass(frozen=True)
class Evaluation:
    """A model's predictions on labelled tiles."""

    probabilities: np.ndarray
    """(N, C) float32."""

    labels: np.ndarray
    """(N,) int64, indices into `classes`."""

    classes: tuple[str, ...]
    """The model's, in the order of the probabilities."""

    names: tuple[str, ...]
    """`Class/file` of each tile."""

    temperature: float = 1.0
    """The one that the probabilities were computed at."""

    @property
    def predicted(self) -> np.ndarray:
        """Return the (N,) indices of the most probable classes."""
        return self.probabilities.argmax(axis=1)

    @property
    def confidence(self) -> np.ndarray:
        """Return the (N,) probabilities of those classes."""
        return self.probabilities.max(axis=1)

    @property
    def accuracy(self) -> float:
        """Return the share of tiles whose most probable class is the label."""
        return float((self.predicted == self.labels).mean())

    @property
    def cross_entropy(self) -> float:
        """Return the mean negative logarithm of the probability of the right class."""
        return cross_entropy(self.probabilities, self.labels)

    @property
    def calibration_error(self) -> float:
        """Return the expected calibration error of the probabilities as they are."""
        return reliability(self.probabilities, self.labels).error

    @cached_property
    def calibration(self) -> Calibration:
        """Return the reliability without and with the model's temperature, and cross-fitted."""
        return calibrate(self.probabilities, self.labels, self.temperature)

    def confusion(self) -> np.ndarray:
        """Return the (C, C) counts: rows are true classes, columns predicted ones."""
        return confusion_matrix(self.labels, self.predicted, labels=range(len(self.classes)))

    def summary(self) -> dict[str, Any]:
        """Return all scores as plain values for JSON; `macro_f1` is over the classes that have tiles."""
        precision, recall, f1, support = precision_recall_fscore_support(
            self.labels, self.predicted, labels=range(len(self.classes)), zero_division=0.0
        )
        return {
            "tiles": len(self.labels),
            "accuracy": round(self.accuracy, 5),
            "macro_f1": round(float(f1[support > 0].mean()), 5),
            "cross_entropy": round(self.cross_entropy, 5),
            "expected_calibration_error": round(self.calibration_error, 5),
            "classes": {
                name: {
                    "precision": round(float(precision[i]), 4),
                    "recall": round(float(recall[i]), 4),
                    "f1": round(float(f1[i]), 4),
                    "tiles": int(support[i]),
                }
                for i, name in enumerate(self.classes)
            },
        }


@dataclass(frozen=True)
class TtaGain:
    """Scores with test-time augmentation, and what it costs."""

    accuracy: float
    """From 0 to 1."""

    cross_entropy: float
    """Of the averaged probabilities."""

    calibration_error: float
    """Of the averaged probabilities, from 0 to 1."""

    slowdown: float
    """How many times as long it takes."""

    def to_json(self) -> dict[str, float]:
        """Return the values rounded."""
        return {
            "accuracy": round(self.accuracy, 5),
            "cross_entropy": round(self.cross_entropy, 5),
            "expected_calibration_error": round(self.calibration_error, 5),
            "slowdown": round(self.slowdown, 2),
        }


def evaluate_bundle(
    bundle: Bundle, folder: Path, names: Sequence[str] | None = None, *, device: str = "auto"
) -> Evaluation:
    """Classify the named tiles (default: all) of a folder of class folders with a bundle.

    Raises:
        TrainingError: a class folder is not one of the model's classes, or the tiles have another size or
            other bands than the model takes.
    """
    return evaluate_tiles(bundle, load_tiles(folder, names, bands=bundle.card.bands), device=device)


def evaluate_tiles(bundle: Bundle, tiles: TileSet, *, device: str = "auto") -> Evaluation:
    """Classify tiles in memory with a bundle, see `evaluate_with`."""
    predictor = Predictor(load_network(bundle), bundle.card, PredictorOptions(device=device))
    return evaluate_with(predictor, tiles)


def evaluate_with(predictor: Predictor, tiles: TileSet) -> Evaluation:
    """Classify tiles in memory as `classify` would; labels are numbered as the model's classes are.

    Raises:
        TrainingError: as `label_tiles` does.
    """
    card = predictor.card
    labels = label_tiles(card, tiles)
    probabilities = predict_tiles(predictor, tiles.images.numpy(), to_values(card, tiles), "evaluating")
    return Evaluation(
        probabilities, labels, tuple(c.name for c in card.classes), tiles.names, card.temperature
    )


def measure_tta(predictor: Predictor, tiles: TileSet) -> TtaGain:
    """Measure the mean over each tile's eight flips and rotations, on the tiles of `evaluate_with`."""
    labels, images = label_tiles(predictor.card, tiles), tiles.images.numpy()
    transform = to_values(predictor.card, tiles)
    some = images[: predictor.tiles_at_a_time]
    seconds = []
    for tta in (False, True):
        predictor.predict_tiles(some[:1], transform, tta)  # the first call prepares
        started = time.perf_counter()
        predictor.predict_tiles(some, transform, tta)
        seconds.append(time.perf_counter() - started)
    probabilities = predict_tiles(predictor, images, transform, "flips and rotations", tta=True)
    return TtaGain(
        accuracy=float((probabilities.argmax(axis=1) == labels).mean()),
        cross_entropy=cross_entropy(probabilities, labels),
        calibration_error=reliability(probabilities, labels).error,
        slowdown=seconds[1] / seconds[0],
    )


def as_trained(card: ModelCard) -> PixelTransform:
    """Return the transform of tiles that hold training values already: clipping to the card's limits."""
    bands = len(card.bands)
    return PixelTransform((1.0,) * bands, (0.0,) * bands, *card.scaling.values)


def to_values(card: ModelCard, tiles: TileSet) -> PixelTransform:
    """Return the transform from stored pixels to the card's training values."""
    bands = len(card.bands)
    gain, bias = value_step(tiles.images, card.scaling)
    return PixelTransform((gain,) * bands, (bias,) * bands, *card.scaling.values)


def label_tiles(card: ModelCard, tiles: TileSet) -> np.ndarray:
    """Return the (N,) labels as indices into the model's classes.

    Raises:
        TrainingError: a class is not one of the model's, or the tiles have another size or other bands.
    """
    known = tuple(c.name for c in card.classes)
    if unknown := sorted(set(tiles.classes) - set(known)):
        raise TrainingError(f"'{unknown[0]}' is not one of the model's classes ({', '.join(known)}).")
    count, size = tiles.images.shape[1], tiles.images.shape[-1]
    if size != card.tile_size:
        raise TrainingError(f"The tiles are {size} pixels wide; the model takes {card.tile_size}.")
    if tiles.bands not in (None, card.bands):
        raise TrainingError(
            f"The tiles hold the bands {', '.join(tiles.bands or ())}; the model takes "
            f"{', '.join(card.bands)}."
        )
    if len(card.bands) != count:
        raise TrainingError(
            f"The tiles have {count} bands; the model takes {len(card.bands)} ({', '.join(card.bands)})."
        )
    return np.array([known.index(name) for name in tiles.classes])[tiles.labels.numpy()]


def predict_tiles(
    predictor: Predictor,
    images: np.ndarray,
    transform: PixelTransform,
    what: str,
    *,
    change: Callable[[np.ndarray], np.ndarray] | None = None,
    tta: bool = False,
) -> np.ndarray:
    """Return the probabilities (N, C) float32 of `images` (N, B, T, T), with a progress bar named `what`.

    `change` is applied to the images first, in parts, since its results may take more memory.
    """
    parts = []
    with tqdm(desc=what, total=len(images), unit=" tiles", disable=None, leave=False) as bar:
        for start in range(0, len(images), PART):
            part = images[start : start + PART]
            parts.append(predictor.predict_tiles(change(part) if change else part, transform, tta))
            bar.update(len(part))
    return np.concatenate(parts)
