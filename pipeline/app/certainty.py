"""How certain the class of an image is: by its probabilities, and by likeness to the training tiles."""

from dataclasses import dataclass
from math import log
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.model.card import LandCoverClass, ModelCard
from pipeline.notes import Note, warning
from pipeline.values import EUROSAT_RGB_SCALING, NATURAL_COLOR

Certainty = Literal["sure", "fair", "unsure", "guess"]

SURE = 0.9
"""From this probability of the first class on, the model is sure."""

UNSURE = 0.6
"""Below this probability of the first class, the model is unsure."""

CLOSE = 0.2
"""The model is unsure, too, if the second class is as close as this to the first."""

GUESS = 0.6
"""Share of the entropy of equal probabilities; above, the class is little more than a guess."""


@dataclass(frozen=True)
class Range:
    """Which values of a measure occur in the training tiles, and how to describe those outside."""

    lowest: float
    """One in a thousand training tiles is below."""

    low: float
    """One in a hundred training tiles is below."""

    high: float
    """One in a hundred training tiles is above."""

    highest: float
    """One in a thousand training tiles is above."""

    below: str
    """An adjective for an image below the range."""

    above: str
    """An adjective for an image above the range."""


# In grey levels, over the 16,200 training tiles. Open water has nearly one colour: a lower limit of 0.1 only
# catches images of one single colour.
# A network has no class "none of these" and names one for any photograph; these ranges catch nearly all.
EUROSAT_RANGES = {
    "brightness": Range(43.0, 46.1, 181.0, 200.8, "darker", "brighter"),
    "red against green": Range(-48.1, -38.9, 42.4, 61.3, "greener", "redder"),
    "green against blue": Range(-43.5, -36.9, 15.7, 23.4, "bluer", "yellower"),
    "contrast": Range(0.1, 0.1, 54.0, 66.0, "flatter", "richer in contrast"),
    "variety of red and green": Range(0.1, 0.1, 33.2, 41.3, "more uniform in colour", "more colourful"),
    "variety of green and blue": Range(0.1, 0.1, 11.1, 17.8, "more uniform in colour", "more colourful"),
    "detail": Range(0.1, 0.1, 17.7, 20.7, "smoother", "richer in detail"),
}

UNUSUAL_MEASURES = 2
"""How many measures outside of `low` to `high` make an image unusual."""


def how_certain(probabilities: npt.NDArray, classes: tuple[LandCoverClass, ...]) -> tuple[Certainty, str]:
    """Return a word and a sentence about the probabilities (classes,)."""
    order = np.argsort(probabilities)[::-1]
    best = float(probabilities[order[0]])
    second = float(probabilities[order[1]]) if len(order) > 1 else 0.0
    name, rival = classes[order[0]].name, classes[order[min(1, len(order) - 1)]].name
    entropy = -float(np.sum(probabilities * np.log(np.maximum(probabilities, 1e-12))))
    if len(order) > 1 and entropy > GUESS * log(len(order)):
        return "guess", f"The model does not know: even {name} gets no more than {_percent(best)}."
    if best < UNSURE or best - second < CLOSE:
        return "unsure", f"The model is unsure: {name} {_percent(best)}, but {rival} {_percent(second)}."
    if best < SURE:
        return "fair", f"The model is fairly sure: {_percent(best)}; next is {rival} with {_percent(second)}."
    return "sure", f"The model is sure: {_percent(best)}."


def is_eurosat_rgb(card: ModelCard) -> bool:
    """Return whether a model was trained on EuroSAT's pictures, so that `EUROSAT_RANGES` apply."""
    return (
        set(card.bands) == set(NATURAL_COLOR) and card.level == "l1c" and card.scaling == EUROSAT_RGB_SCALING
    )


def measure(colors: npt.NDArray[np.uint8]) -> dict[str, float]:
    """Return the measures of `EUROSAT_RANGES` for a tile (T, T, 3)."""
    red, green, blue = np.moveaxis(colors.astype(np.float32), -1, 0)
    grey = (red + green + blue) / 3
    steps = np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()
    measured = (
        *(grey.mean(), (red - green).mean(), (green - blue).mean()),
        *(grey.std(), (red - green).std(), (green - blue).std()),
        steps / 2,
    )
    return dict(zip(EUROSAT_RANGES, map(float, measured), strict=True))


def compare_with_training(colors: npt.NDArray[np.uint8]) -> tuple[str | None, Note | None]:
    """Compare a tile (T, T, 3) with EuroSAT's training tiles.

    Returns a sentence if it differs so much that its class means nothing, or a note if it is only unusual.
    """
    unfamiliar, unusual = [], []
    for name, value in measure(colors).items():
        range_ = EUROSAT_RANGES[name]
        word = range_.below if value < range_.low else range_.above
        if not range_.low <= value <= range_.high:
            unusual.append(word)
        if not range_.lowest <= value <= range_.highest:
            unfamiliar.append(word)
    if unfamiliar:
        sentence = (
            "This does not look like the satellite images that the model knows: it is "
            f"{_listed(unfamiliar)} than all but one in a thousand of them. The model names a class anyway; "
            "don't rely on it."
        )
        return sentence, None
    if len(unusual) < UNUSUAL_MEASURES:
        return None, None
    return None, warning(
        "image-unusual",
        None,
        f"The image is unusual for the model, {_listed(unusual)} than 99 in 100 of those it learned from: is "
        "it a satellite image?",
    )


def _listed(words: list[str]) -> str:
    *others, last = dict.fromkeys(words)
    return f"{', '.join(others)} and {last}" if others else last


def _percent(probability: float) -> str:
    """Return a probability as text, which never says 100 %."""
    return "over 99 %" if probability >= 0.995 else f"{100 * probability:.0f} %"
