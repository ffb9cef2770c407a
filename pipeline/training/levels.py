"""What each product level would hold where the other holds a given reflectance, in clear or hazy air.

Pure arrays.
"""

from collections.abc import Sequence

import numpy as np

from pipeline.model.card import ModelCard
from pipeline.scenes.atmosphere import AEROSOL_DEPTH_550, clear_atmosphere
from pipeline.values import DIGITAL_NUMBERS

Array = np.ndarray


def surface_reflectance(toa: Array, bands: Sequence[str], aerosol_depth: float = AEROSOL_DEPTH_550) -> Array:
    """Return what Level-2A would hold where Level-1C holds `toa` (..., B, H, W), both reflectance.

    This is an atmospheric correction that knows the air, with `aerosol_depth` at 550 nm. `radiometry` assumes
    nominal air when it brings the result back, so that in any other air a difference remains.
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
