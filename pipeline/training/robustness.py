"""How a model does on tiles as scenes show them: resampled, without JPEG, as Level-2A, under clouds.

EuroSAT's tiles are cut at native sharpness out of Level-1C scenes and stored as JPEG; the scenes to classify
often differ in all of that. Each condition changes labelled tiles as its name says, brings them to training
values by the same code as `classify`, and compares the result with that for the tiles as they are.
Pure arrays: no scenes and no files.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from pipeline.errors import TrainingError
from pipeline.model.card import ModelCard
from pipeline.model.predictor import Predictor
from pipeline.scenes.atmosphere import WAVELENGTH_AND_OZONE
from pipeline.scenes.radiometry import PixelEncoding, pixel_transform, reflectance_encoding
from pipeline.training.dataset import TileSet
from pipeline.training.evaluate import Evaluation, as_trained, predict_tiles, to_values
from pipeline.training.folders import stem_of
from pipeline.training.levels import digital_numbers, reflectance_of, surface_reflectance, toa_reflectance
from pipeline.training.outliers import KINDS, Ground, cover_with
from pipeline.training.resampling import KERNELS, middle_matrix, resample, resampling_matrix
from pipeline.values import DIGITAL_NUMBERS, PixelTransform

POINTS_TO_LOSE = 1.0
"""Percentage points of accuracy that a model may lose under a condition to pass it."""

SCALES = (0.8, 1.2)
"""Of the ground pixel: 8 m and 12 m for a model at 10 m."""

AEROSOL_DEPTHS = (0.05, 0.1, 0.25)
"""At 550 nm: very clear, as `radiometry` assumes, hazy."""

OUTLIER_TILES = 256
"""Tiles that are covered with clouds and snow."""

SURE = 0.9
"""The probability from which a model counts as sure."""

Array = np.ndarray


@dataclass(frozen=True)
class Condition:
    """Accuracy under one condition, compared with that on the same tiles as they are."""

    name: str
    """What was done to the tiles."""

    tiles: int
    """How many were measured."""

    accuracy: float
    """Under the condition, from 0 to 1."""

    native_accuracy: float
    """Of the tiles as they are, from 0 to 1."""

    same_class: float
    """Share of tiles that are given the same class both times."""

    @property
    def points_lost(self) -> float:
        """Return the accuracy lost in percentage points; negative if it rose."""
        return 100 * (self.native_accuracy - self.accuracy)

    @property
    def mastered(self) -> bool:
        """Tell whether no more was lost than a model may lose."""
        return self.points_lost <= POINTS_TO_LOSE

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "condition": self.name,
            "tiles": self.tiles,
            "accuracy": round(self.accuracy, 5),
            "native_accuracy": round(self.native_accuracy, 5),
            "points_lost": round(self.points_lost, 2),
            "same_class": round(self.same_class, 5),
        }


@dataclass(frozen=True)
class Outlier:
    """What a model says about something that it has no class for."""

    name: str
    """What it is."""

    tiles: int
    """How many were shown."""

    median_confidence: float
    """Should be low."""

    sure: float
    """Share of tiles with a confidence of 90 % or more; should be low."""

    classes: dict[str, float]
    """The three classes that it is taken for most often, with their shares."""

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "outlier": self.name,
            "tiles": self.tiles,
            "median_confidence": round(self.median_confidence, 4),
            "sure": round(self.sure, 4),
            "classes": {name: round(share, 4) for name, share in self.classes.items()},
        }


@dataclass(frozen=True)
class _Change:
    """A way to change tiles."""

    name: str
    """What is done."""

    apply: Callable[[Array], Array]
    """Maps training values (n, B, T, T) float32 to pixels."""

    transform: PixelTransform
    """Brings these pixels back to training values."""


def measure_robustness(
    predictor: Predictor, tiles: TileSet, native: Evaluation, raw: TileSet | None = None
) -> tuple[Condition, ...]:
    """Measure tiles under every condition that applies; `native` is their evaluation as they are.

    `raw` are the tiles of digital numbers from which those of the same name in `tiles` were made; only tiles
    with such a partner are compared.

    Raises:
        TrainingError: no tile has a partner, or the raw tiles hold 8 bits.
    """
    card = predictor.card
    conditions = [
        _compare(change.name, native, _predict(predictor, tiles, change))
        for change in (*_resamplings(card), *_other_levels(card))
    ]
    if raw is not None:
        conditions.insert(0, _compare_raw(predictor, native, raw))
    return tuple(conditions)


def measure_outliers(predictor: Predictor, tiles: TileSet, seed: int = 0) -> tuple[Outlier, ...]:
    """Show the model what it has no class for: pure white, and some of the `tiles` under clouds and snow."""
    card, generator = predictor.card, torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(tiles), generator=generator)[:OUTLIER_TILES]
    values = torch.from_numpy(to_values(card, tiles).apply(tiles.images[chosen].numpy()))
    ground = Ground(values, card.scaling, card.bands)
    made = {"white, every band at its limit": torch.full_like(values, card.scaling.values[1])}
    made |= {kind: cover_with(kind, ground, generator) for kind in KINDS}
    return tuple(_judge_outlier(name, predictor, covered.numpy()) for name, covered in made.items())


def _judge_outlier(name: str, predictor: Predictor, values: Array) -> Outlier:
    card = predictor.card
    probabilities = predict_tiles(predictor, values, as_trained(card), name)
    confidence, classes = probabilities.max(axis=1), Counter(probabilities.argmax(axis=1).tolist())
    return Outlier(
        name=name,
        tiles=len(values),
        median_confidence=float(np.median(confidence)),
        sure=float((confidence >= SURE).mean()),
        classes={card.classes[c].name: count / len(values) for c, count in classes.most_common(3)},
    )


def _predict(predictor: Predictor, tiles: TileSet, change: _Change) -> Array:
    """Return the (N,) classes of changed tiles."""
    stored = to_values(predictor.card, tiles)
    probabilities = predict_tiles(
        predictor,
        tiles.images.numpy(),
        change.transform,
        change.name,
        change=lambda images: change.apply(stored.apply(images)),
    )
    return probabilities.argmax(axis=1)


def _compare(name: str, native: Evaluation, predicted: Array, of: Array | slice = slice(None)) -> Condition:
    labels, as_they_are = native.labels[of], native.predicted[of]
    return Condition(
        name=name,
        tiles=len(labels),
        accuracy=float((predicted == labels).mean()),
        native_accuracy=float((as_they_are == labels).mean()),
        same_class=float((predicted == as_they_are).mean()),
    )


def _compare_raw(predictor: Predictor, native: Evaluation, raw: TileSet) -> Condition:
    card = predictor.card
    if raw.images.dtype == torch.uint8:
        raise TrainingError("The raw tiles hold 8 bits: give the digital numbers that they were made from.")
    # EuroSAT's `Class/Class_1.jpg` was made from its `Class/Class_1.tif`.
    partners = {stem_of(name): i for i, name in enumerate(raw.names)}
    pairs = [(i, partners[stem_of(name)]) for i, name in enumerate(native.names) if stem_of(name) in partners]
    if not pairs:
        raise TrainingError("None of the raw tiles has the name of a tile in `data`: give those that do.")
    ours, theirs = np.array(pairs).T
    transform = pixel_transform(card, _digital_numbers(card.level, len(card.bands)))
    pixels = raw.images.numpy()[theirs]
    predicted = predict_tiles(predictor, pixels, transform, "raw tiles").argmax(axis=1)
    return _compare("raw pixels, never compressed", native, predicted, ours)


def _resamplings(card: ModelCard) -> Iterator[_Change]:
    """Yield what warping does to a scene: interpolation, to pixels that are shifted or of another size.

    A scene that is coarser than the model is brought to the model's pixel size, and so is only softer. Finer
    pixels also show less ground: what that alone costs is measured too, at native sharpness.
    """
    size, back = card.tile_size, as_trained(card)
    for kernel in KERNELS:
        half = resampling_matrix(size, kernel, shift=0.5)
        yield _Change(f"shifted by half a pixel, {kernel}", partial(resample, matrix=half), back)
    for scale in SCALES:
        if scale < 1:
            name = f"no more ground than {scale * card.gsd:g} m pixels show"
            yield _Change(name, partial(resample, matrix=middle_matrix(size, scale)), back)
        for kernel in KERNELS:
            matrix = resampling_matrix(size, kernel, scale=scale)
            name = f"ground pixels of {scale * card.gsd:g} m, {kernel}"
            yield _Change(name, partial(resample, matrix=matrix), back)
    coarse = resampling_matrix(size, "bilinear", scale=SCALES[-1])
    for kernel in KERNELS:
        matrix = resampling_matrix(size, kernel, scale=1 / SCALES[-1]) @ coarse
        name = f"a scene of {SCALES[-1] * card.gsd:g} m brought to {card.gsd:g} m, {kernel}"
        yield _Change(name, partial(resample, matrix=matrix), back)


def _other_levels(card: ModelCard) -> Iterator[_Change]:
    """Yield the same ground as the product level that the model does not know, in several kinds of air."""
    if not set(card.bands) <= WAVELENGTH_AND_OZONE.keys():
        return
    other = "l2a" if card.level == "l1c" else "l1c"
    transform = pixel_transform(card, _digital_numbers(other, len(card.bands)))
    for depth in AEROSOL_DEPTHS:
        yield _Change(
            f"as {other.upper()}, aerosol depth {depth:g}",
            partial(_to_level, level=other, card=card, aerosol_depth=depth),
            transform,
        )


def _to_level(values: Array, level: str, card: ModelCard, aerosol_depth: float) -> Array:
    change = surface_reflectance if level == "l2a" else toa_reflectance
    return digital_numbers(change(reflectance_of(values, card), card.bands, aerosol_depth))


def _digital_numbers(level: str, bands: int) -> PixelEncoding:
    return reflectance_encoding(level, (0.0,) * bands, (1 / DIGITAL_NUMBERS,) * bands)
