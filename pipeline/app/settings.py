"""The settings that the page offers, by their labels, and messages that name settings by these labels."""

import re
from dataclasses import fields
from typing import Any

from pipeline.options import (
    LEVELS,
    MIN_STRIDE,
    SAFE_RESOLUTIONS,
    AppOptions,
    BatchOptions,
    ClassifyOptions,
    MosaicOptions,
    PredictorOptions,
    SceneOptions,
)

LABELS = {
    "model": "Model",
    "level": "Level",
    "offset": "Offset",
    "bands": "Bands",
    "assume_crs": "Coordinate system",
    "assume_gsd": "Pixel size",
    "safe_resolution": "SAFE resolution",
    "stride": "Stride",
}
"""What the page calls an option."""

LEVEL_MEANINGS = {
    "auto": "detect",
    "l1c": "Level-1C, top of atmosphere",
    "l2a": "Level-2A, surface",
    "tci": "ESA's true-colour image",
    "rgb8": "8-bit colours like the model's",
}
"""What the page says about each of `LEVELS`."""

APP_FLAGS = frozenset(field.name for field in fields(AppOptions))
OTHER_FLAGS = frozenset(
    field.name
    for options in (BatchOptions, ClassifyOptions, MosaicOptions, PredictorOptions, SceneOptions)
    for field in fields(options)
)


def describe_settings() -> dict[str, Any]:
    """Return the labels of the settings and what can be chosen, as plain values."""
    return {
        "labels": LABELS,
        "levels": [{"name": level, "meaning": LEVEL_MEANINGS[level]} for level in LEVELS],
        "safe_resolutions": list(SAFE_RESOLUTIONS),
    }


def offered_strides(tile_size: int) -> list[int]:
    """Return the strides that the page offers for a model: its tile, halved down to `MIN_STRIDE`."""
    strides = [tile_size]
    while strides[-1] % 2 == 0 and strides[-1] // 2 >= MIN_STRIDE:
        strides.append(strides[-1] // 2)
    return strides


def in_page_words(text: str) -> str:
    """Return a message with options as the page shows them: `level` as “Level”.

    What the page does not offer is named by the command's flag: `max_upload` as --max-upload, with which the
    app is started, and `min_confidence` as landcover classify --min-confidence.
    """
    return re.sub(r"`([a-z_]+)`", lambda match: _page_word(match[1]), text)


def _page_word(option: str) -> str:
    if option in LABELS:
        return f"“{LABELS[option]}”"
    flag = "--" + option.replace("_", "-")
    if option in APP_FLAGS:
        return flag
    if option == "output":
        return "landcover classify -o"
    return f"landcover classify {flag}" if option in OTHER_FLAGS else f"`{option}`"
