"""Sample predictions: tiles to look at, with what they are and what they are taken for."""

from dataclasses import dataclass

import numpy as np

from pipeline.training.dataset import TileSet
from pipeline.training.evaluate import Evaluation
from pipeline.values import DIGITAL_NUMBERS, EUROSAT_RGB_SCALING, NATURAL_COLOR

SAMPLES = 18
"""Of right predictions and of wrong ones."""


@dataclass(frozen=True)
class Sample:
    """A tile to look at, and what the model says about it."""

    picture: np.ndarray
    """(T, T, 3) uint8."""

    name: str
    """`Class/file`."""

    true: str
    """The class that it is."""

    predicted: str
    """The class that the model takes it for."""

    confidence: float
    """The probability of that class."""

    @property
    def right(self) -> bool:
        """Tell whether it is taken for what it is."""
        return self.true == self.predicted


def choose_samples(evaluation: Evaluation, tiles: TileSet) -> dict[str, list[Sample]]:
    """Return samples by title: right ones of each class in turn, and the most confident mistakes."""
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
    """Return the indices of all eligible tiles: one of each class at random, then another, and so on."""
    shuffled = np.random.default_rng(0).permutation(np.flatnonzero(eligible))
    seen = np.zeros(labels.max() + 1, int)
    turn = np.empty(len(shuffled), int)
    for position, i in enumerate(shuffled):
        turn[position] = seen[labels[i]]
        seen[labels[i]] += 1
    return shuffled[np.lexsort((labels[shuffled], turn))]


def _picture(tiles: TileSet, i: int) -> np.ndarray:
    """Return a tile as (T, T, 3) uint8: as it is, in natural color, or its first band in gray."""
    pixels, bands = tiles.images[i].numpy(), tiles.bands
    if bands is not None and set(NATURAL_COLOR) <= set(bands):
        pixels = pixels[[bands.index(band) for band in NATURAL_COLOR]]
    elif bands is not None or len(pixels) != 3:
        pixels = np.repeat(pixels[:1], 3, axis=0)
    if pixels.dtype != np.uint8:
        values = EUROSAT_RGB_SCALING.to_value(pixels / DIGITAL_NUMBERS)
        pixels = np.rint(values.clip(*EUROSAT_RGB_SCALING.values))
    return pixels.astype(np.uint8).transpose(1, 2, 0)
