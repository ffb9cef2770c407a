"""What a model makes of tiles as scenes show them: resampled, without JPEG, as Level-2A, under clouds.

EuroSAT's tiles are cut at native sharpness out of Level-1C scenes and stored as JPEG; a scene that is
classified is often none of that. Each condition here changes labelled tiles as its name says, brings
them to training values by the same code as `classify`, and compares with the tiles as they are.
Pure arrays; scenes and files are unknown here.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch

from pipeline.errors import TrainingError
from pipeline.model.card import ModelCard
from pipeline.model.predictor import Predictor
from pipeline.scenes.atmosphere import AEROSOL_DEPTH_550, WAVELENGTH_AND_OZONE, clear_atmosphere
from pipeline.scenes.radiometry import PixelEncoding, pixel_transform, reflectance_encoding
from pipeline.training.dataset import TileSet
from pipeline.training.evaluate import Evaluation, as_trained, predict_tiles, to_values
from pipeline.training.outliers import KINDS, Ground, cover_with
from pipeline.values import DIGITAL_NUMBERS, PixelTransform

POINTS_TO_LOSE = 1.0  # percentage points of accuracy: more than that, and a condition is not mastered
SCALES = (0.8, 1.2)  # of the ground pixel: 8 m and 12 m for a model at 10 m
AEROSOL_DEPTHS = (0.05, 0.1, 0.25)  # at 550 nm: very clear, as `radiometry` assumes, hazy
OUTLIER_TILES = 256
SURE = 0.9

Array = np.ndarray


@dataclass(frozen=True)
class Condition:
    """Accuracy under one condition against `native_accuracy`, that of the same tiles as they are.

    `same_class` is the share of tiles whose class stayed.
    """

    name: str
    tiles: int
    accuracy: float
    native_accuracy: float
    same_class: float

    @property
    def points_lost(self) -> float:
        """Return the accuracy lost in percentage points; less than 0 if it rose."""
        return 100 * (self.native_accuracy - self.accuracy)

    @property
    def mastered(self) -> bool:
        """Return whether no more was lost than a model may lose."""
        return self.points_lost <= POINTS_TO_LOSE

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain values."""
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
    """What a model says of something that it has no class for.

    `median_confidence` and the share of tiles `sure`, with 90 % or more, should be low; `classes` are the
    three that it is taken for most often, with their share.
    """

    name: str
    tiles: int
    median_confidence: float
    sure: float
    classes: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {
            "outlier": self.name,
            "tiles": self.tiles,
            "median_confidence": round(self.median_confidence, 4),
            "sure": round(self.sure, 4),
            "classes": {name: round(share, 4) for name, share in self.classes.items()},
        }


@dataclass(frozen=True)
class _Change:
    """A way to change tiles: training values (n, B, T, T) float32 -> pixels, and what brings those back."""

    name: str
    apply: Callable[[Array], Array]
    transform: PixelTransform


def measure_robustness(
    predictor: Predictor, tiles: TileSet, native: Evaluation, raw: TileSet | None = None
) -> tuple[Condition, ...]:
    """Measure `tiles`, whose evaluation as they are is `native`, under every condition that applies.

    `raw` are tiles of digital numbers that the same-named ones of `tiles` were made from; only those with
    such a partner are compared. Raises TrainingError if there is none.
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
    """Show the model what it has no class for: pure white, clouds and snow made over some of the `tiles`."""
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
    partners = {_stem(name): i for i, name in enumerate(raw.names)}
    pairs = [(i, partners[_stem(name)]) for i, name in enumerate(native.names) if _stem(name) in partners]
    if not pairs:
        raise TrainingError("None of the raw tiles has the name of a tile in `data`: give those that do.")
    ours, theirs = np.array(pairs).T
    transform = pixel_transform(card, _digital_numbers(card.level, len(card.bands)))
    pixels = raw.images.numpy()[theirs]
    predicted = predict_tiles(predictor, pixels, transform, "raw tiles").argmax(axis=1)
    return _compare("raw pixels, never compressed", native, predicted, ours)


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


# --- sharpness -----------------------------------------------------------------------------------------


def _resamplings(card: ModelCard) -> Iterator[_Change]:
    """Yield what warping does to a scene: interpolated once, on pixels shifted or of another size.

    A scene that is coarser than the model arrives at its pixel size all the same, only softer. Finer pixels
    also show less ground: what that alone costs is measured beside, at native sharpness.
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


def bilinear(x: Array) -> Array:
    """Return the weights of linear interpolation at distances `x`, in pixels."""
    return np.clip(1 - np.abs(x), 0, None)


def cubic(x: Array) -> Array:
    """Return the weights of cubic convolution with a = -0.5 (Keys, 1981), which is what GDAL's cubic is."""
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


KERNELS: dict[str, Callable[[Array], Array]] = {"bilinear": bilinear, "cubic": cubic}


def resampling_matrix(size: int, kernel: str, *, scale: float = 1.0, shift: float = 0.0) -> Array:
    """Return the (size, size) float32 matrix that resamples a row of pixels about its middle.

    New pixels are `scale` times as large as the old ones and lie `shift` old pixels further on. Where they
    become larger the kernel widens with them, as GDAL's does; at the edges the row is reflected.
    """
    width = max(1.0, scale)
    centre = (np.arange(size) + 0.5 - size / 2) * scale + size / 2 + shift
    source = np.arange(-size, 2 * size)
    weights = KERNELS[kernel]((source + 0.5 - centre[:, None]) / width)
    weights /= weights.sum(axis=1, keepdims=True)
    before, inside, after = np.split(weights, 3, axis=1)
    return (before[:, ::-1] + inside + after[:, ::-1]).astype(np.float32)


def middle_matrix(size: int, share: float) -> Array:
    """Return the (size, size) float32 matrix that keeps the middle `share` of a row of pixels as it is.

    The rest becomes its reflection.
    """
    kept = round(share * size)
    start = (size - kept) // 2
    indices = np.pad(np.arange(start, start + kept), (start, size - kept - start), mode="reflect")
    return np.eye(size, dtype=np.float32)[indices]


def resample(values: Array, matrix: Array) -> Array:
    """Apply a resampling matrix along the rows and the columns of tiles (n, B, T, T) float32."""
    return matrix @ values @ matrix.T


# --- radiometry ----------------------------------------------------------------------------------------


def _other_levels(card: ModelCard) -> Iterator[_Change]:
    """Yield the same ground as the product level that the model does not know, through several airs."""
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


def surface_reflectance(toa: Array, bands: Sequence[str], aerosol_depth: float = AEROSOL_DEPTH_550) -> Array:
    """Return what Level-2A would hold where Level-1C holds `toa` (..., B, H, W), both reflectance.

    An atmospheric correction that knows its air: `radiometry` then brings the result back assuming its
    nominal one, so that with another `aerosol_depth` (at 550 nm) something remains.
    """
    path, transmittance = _air(bands, aerosol_depth)
    return (toa - path) / transmittance


def toa_reflectance(surface: Array, bands: Sequence[str], aerosol_depth: float = AEROSOL_DEPTH_550) -> Array:
    """Return what Level-1C would hold where Level-2A holds `surface`: `surface_reflectance` undone."""
    path, transmittance = _air(bands, aerosol_depth)
    return path + transmittance * surface


def _air(bands: Sequence[str], aerosol_depth: float) -> tuple[Array, Array]:
    """Return path reflectance and transmittance, each (B, 1, 1), of a day with more or less aerosol."""
    air = [clear_atmosphere(band, aerosol_depth=aerosol_depth) for band in bands]
    path, transmittance = np.array(air, np.float32).T[..., None, None]
    return path, transmittance


def reflectance_of(values: Array, card: ModelCard) -> Array:
    """Return the reflectance, float32, that training values stand for."""
    return card.scaling.to_reflectance(values).astype(np.float32)


def digital_numbers(reflectance: Array) -> Array:
    """Return reflectance as a product stores it: int16, 1 at least, since 0 means no data."""
    return np.clip(np.rint(reflectance * DIGITAL_NUMBERS), 1, 32_767).astype(np.int16)


def _digital_numbers(level: str, bands: int) -> PixelEncoding:
    return reflectance_encoding(level, (0.0,) * bands, (1 / DIGITAL_NUMBERS,) * bands)
