"""How far to trust the class of an image: how sure the model is, and whether the image is of its kind."""

from dataclasses import dataclass
from math import log

import numpy as np
import numpy.typing as npt

from pipeline.model.card import LandCoverClass, ModelCard
from pipeline.notes import Note, warning
from pipeline.values import EUROSAT_RGB_SCALING, NATURAL_COLOR


@dataclass(frozen=True)
class Range:
    """Where a measure of the training tiles lies, and what an image is called that lies below or above."""

    lowest: float
    low: float
    high: float
    highest: float
    below: str
    above: str


# Probability of the first class: from here on the model is sure, below the second number it is not.
SURE, UNSURE = 0.9, 0.6
CLOSE = 0.2  # the second class is a rival if it comes as close as this
# Of the entropy of ten equal probabilities; from here on the answer is little more than a guess.
LOST = 0.6

# What EuroSAT's tiles look like, in grey levels: of the 16,200 training tiles one in a thousand and one in a
# hundred lie below the first two numbers of a measure, one in a hundred and one in a thousand above the last
# two. Open water is of nearly one colour: there 0.1 only tells a picture of nothing.
# A network knows no "none of these" and names a class of any photograph; these tell nearly all of them.
EUROSAT_LOOK = {
    "brightness": Range(43.0, 46.1, 181.0, 200.8, "darker", "brighter"),
    "red against green": Range(-48.1, -38.9, 42.4, 61.3, "greener", "redder"),
    "green against blue": Range(-43.5, -36.9, 15.7, 23.4, "bluer", "yellower"),
    "contrast": Range(0.1, 0.1, 54.0, 66.0, "flatter", "richer in contrast"),
    "variety of red and green": Range(0.1, 0.1, 33.2, 41.3, "more uniform in colour", "more colourful"),
    "variety of green and blue": Range(0.1, 0.1, 11.1, 17.8, "more uniform in colour", "more colourful"),
    "detail": Range(0.1, 0.1, 17.7, 20.7, "smoother", "richer in detail"),
}
RARE = 2  # so many measures outside of ninety-eight in a hundred tiles make an image unusual


def how_sure(probabilities: npt.NDArray, classes: tuple[LandCoverClass, ...]) -> tuple[str, str]:
    """Return a word (sure, fair, unsure, lost) and a sentence about the probabilities (classes,)."""
    order = np.argsort(probabilities)[::-1]
    best = float(probabilities[order[0]])
    second = float(probabilities[order[1]]) if len(order) > 1 else 0.0
    name, rival = classes[order[0]].name, classes[order[min(1, len(order) - 1)]].name
    entropy = -float(np.sum(probabilities * np.log(np.maximum(probabilities, 1e-12))))
    if len(order) > 1 and entropy > LOST * log(len(order)):
        return "lost", f"The model does not know: even {name} gets no more than {_percent(best)}."
    if best < UNSURE or best - second < CLOSE:
        return "unsure", f"The model is unsure: {name} {_percent(best)}, but {rival} {_percent(second)}."
    if best < SURE:
        return (
            "fair",
            f"The model is fairly sure: {_percent(best)}; next comes {rival} with {_percent(second)}.",
        )
    return "sure", f"The model is sure: {_percent(best)}."


def is_eurosat_rgb(card: ModelCard) -> bool:
    """Tell whether a model was trained on pictures as EuroSAT's are, so that `EUROSAT_LOOK` holds."""
    return (
        set(card.bands) == set(NATURAL_COLOR) and card.level == "l1c" and card.scaling == EUROSAT_RGB_SCALING
    )


def measure_look(colours: npt.NDArray[np.uint8]) -> dict[str, float]:
    """Return the measures of `EUROSAT_LOOK` for a tile (T, T, 3)."""
    red, green, blue = np.moveaxis(colours.astype(np.float32), -1, 0)
    grey = (red + green + blue) / 3
    steps = np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()
    measured = (
        *(grey.mean(), (red - green).mean(), (green - blue).mean()),
        *(grey.std(), (red - green).std(), (green - blue).std()),
        steps / 2,
    )
    return dict(zip(EUROSAT_LOOK, map(float, measured), strict=True))


def unlike_training(colours: npt.NDArray[np.uint8]) -> tuple[str | None, Note | None]:
    """Compare a tile (T, T, 3) with all of EuroSAT's.

    Returns a sentence if it differs from them so much that its class means nothing, else None; and a note
    if it is merely unusual.
    """
    strange, rare = [], []
    for measure, value in measure_look(colours).items():
        look = EUROSAT_LOOK[measure]
        word = look.below if value < look.low else look.above
        if not look.low <= value <= look.high:
            rare.append(word)
        if not look.lowest <= value <= look.highest:
            strange.append(word)
    if strange:
        sentence = (
            "This does not look like the satellite images that the model knows: it is "
            f"{_listed(strange)} than all but one in a thousand of them. A class is named all the same; "
            "don't rely on it."
        )
        return sentence, None
    if len(rare) < RARE:
        return None, None
    return None, warning(
        "image-unusual",
        None,
        f"The image is unusual for the model, {_listed(rare)} than 99 in 100 of those it learned from: is it "
        "a satellite image?",
    )


def _listed(words: list[str]) -> str:
    *others, last = dict.fromkeys(words)
    return f"{', '.join(others)} and {last}" if others else last


def _percent(probability: float) -> str:
    """Return a probability in words of a page; certainty there is none."""
    return "over 99 %" if probability >= 0.995 else f"{100 * probability:.0f} %"
