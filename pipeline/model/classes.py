"""Numbers and colours for classes: fixed colours for EuroSAT's ten, spread hues for a user's own."""

import colorsys
from collections.abc import Sequence

from pipeline.model.card import LandCoverClass

EUROSAT_COLORS = {
    "AnnualCrop": "#e8c547",
    "Forest": "#1b6e3c",
    "HerbaceousVegetation": "#8fc866",
    "Highway": "#5c5c66",
    "Industrial": "#9e4ba0",
    "Pasture": "#c5e39a",
    "PermanentCrop": "#d9822b",
    "Residential": "#d6393c",
    "River": "#4fa8d8",
    "SeaLake": "#1f4e9c",
}
"""The colours of EuroSAT's classes."""

_GOLDEN_ANGLE = 0.381966  # of a turn: successive hues are far apart however many there are


def number_classes(names: Sequence[str]) -> tuple[LandCoverClass, ...]:
    """Return a class for each name, in the order of the network's outputs, with the ids 1..n."""
    return tuple(
        LandCoverClass(i + 1, name, EUROSAT_COLORS.get(name) or _spread_color(i))
        for i, name in enumerate(names)
    )


def _spread_color(i: int) -> str:
    """Return the `i`-th colour of an endless palette, as `#rrggbb`."""
    red, green, blue = colorsys.hls_to_rgb((i * _GOLDEN_ANGLE) % 1, 0.45 + 0.15 * (i % 2), 0.6)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"
