"""From stored pixel values to those that a model was trained on: one affine step and a clip per band.

Three affine steps are composed: stored value -> reflectance (offset and scale of the product),
surface reflectance <-> top-of-atmosphere reflectance (only where scene and model differ in that), and
reflectance -> training value (the model's card). Pure functions on numbers, no files.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import SceneError
from pipeline.model.card import ModelCard
from pipeline.scenes.atmosphere import SUN_ZENITH, atmosphere_step
from pipeline.values import NATURAL_COLOR, PixelTransform

# ESA's true-colour image holds 1 at reflectance 0 and 255 at this reflectance; 0 is no data. L1C: ESA's
# product definition. L2A: fitted to a product of baseline 04.00 (1 + 254 r / 0.25, residual below 1).
TCI_SATURATION = {"l1c": 0.3558, "l2a": 0.25}


@dataclass(frozen=True)
class PixelEncoding:
    """What a scene's stored numbers mean: reflectance = scale[b] * (pixel + offset[b])."""

    level: str
    """l1c, l2a, tci or rgb8, as in the option `level`."""

    reflectance: str | None
    """Where it is measured: l1c (top of atmosphere) or l2a (surface). None for rgb8: training values."""

    offset: tuple[float, ...]
    """What is added to the stored values of each band."""

    scale: tuple[float, ...]
    """The factor of each band."""

    sun_zenith: float | None = None
    """The sun's angle from the zenith in degrees; None if it is not known."""


def reflectance_encoding(level: str, offset: Sequence[float], scale: Sequence[float]) -> PixelEncoding:
    """Return the encoding of an L1C or L2A scene; offset is added to stored values before scaling."""
    return PixelEncoding(level, level, tuple(offset), tuple(scale))


def tci_encoding(reflectance: str, bands: int) -> PixelEncoding:
    """Return the encoding of ESA's true-colour image made from an `l1c` or `l2a` product."""
    return PixelEncoding("tci", reflectance, (-1.0,) * bands, (TCI_SATURATION[reflectance] / 254,) * bands)


def rgb8_encoding(bands: int) -> PixelEncoding:
    """Return the encoding of 8-bit values that are training values already."""
    return PixelEncoding("rgb8", None, (0.0,) * bands, (1.0,) * bands)


def pixel_transform(card: ModelCard, encoding: PixelEncoding) -> PixelTransform:
    """Compose the step from stored pixels to the card's training values.

    Raises SceneError if the scene holds 8-bit colours and the model needs other bands or reflectance.
    """
    if encoding.level in ("tci", "rgb8") and not set(card.bands) <= set(NATURAL_COLOR):
        raise SceneError(
            f"A picture in natural colours (`level` {encoding.level}) has red, green and blue only, but the "
            f"model {card.name} needs {', '.join(card.bands)}: give the reflectance bands instead."
        )
    if encoding.reflectance is None:
        if card.scaling.values != (1.0, 255.0):
            raise SceneError(
                f"`level` rgb8 means values that are the model's own already, but {card.name} was trained on "
                f"values of {card.scaling.values[0]:g} to {card.scaling.values[1]:g}, not on 8-bit colours."
            )
        return PixelTransform.identity(len(card.bands))
    gain = np.asarray(encoding.scale, dtype=np.float64)
    bias = gain * np.asarray(encoding.offset, dtype=np.float64)
    sun = SUN_ZENITH if encoding.sun_zenith is None else encoding.sun_zenith
    air_gain, air_bias = atmosphere_step(encoding.reflectance, card.level, card.bands, sun)
    gain, bias = air_gain * gain, air_gain * bias + air_bias
    gain, bias = card.scaling.stretch * gain, card.scaling.to_value(bias)
    return PixelTransform(tuple(gain.tolist()), tuple(bias.tolist()), *card.scaling.values)
