"""Stored pixel values -> the values that a model was trained on, as one affine step and a clip per band.

Three affine steps are composed: stored value -> reflectance (offset and scale of the product),
surface reflectance <-> top-of-atmosphere reflectance (only where scene and model differ in that), and
reflectance -> training value (the model's card). Pure functions on numbers; files are unknown here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import cos, exp, radians

import numpy as np
import numpy.typing as npt

from pipeline.errors import SceneError
from pipeline.model.bundle import ModelCard

VISIBLE = frozenset({"B02", "B03", "B04"})

# ESA's true-colour image holds 1 at reflectance 0 and 255 at this reflectance; 0 is no data. L1C: ESA's
# product definition. L2A: fitted to a product of baseline 04.00 (1 + 254 r / 0.25, residual below 1).
TCI_SATURATION = {"l1c": 0.3558, "l2a": 0.25}


@dataclass(frozen=True)
class PixelEncoding:
    """What a scene's stored numbers mean: reflectance = scale[b] * (pixel + offset[b]).

    `level` is the word of `--level`: l1c, l2a, tci or rgb8. `reflectance` says where that reflectance
    was measured, `l1c` (top of atmosphere) or `l2a` (surface); it is None for rgb8, whose numbers
    already are training values. `sun_zenith` is in degrees, None if it is not known.
    """

    level: str
    reflectance: str | None
    offset: tuple[float, ...]
    scale: tuple[float, ...]
    sun_zenith: float | None = None


@dataclass(frozen=True)
class PixelTransform:
    """value = clip(gain[b] * pixel + bias[b], low, high): stored pixel -> the model's training value.

    One multiplication and one addition a pixel, so that it can run on the device on raw integers.
    """

    gain: tuple[float, ...]
    bias: tuple[float, ...]
    low: float
    high: float

    @classmethod
    def identity(cls, bands: int) -> "PixelTransform":
        """Return the step for pixels that already are training values, 0 to 255: none."""
        return cls((1.0,) * bands, (0.0,) * bands, 0.0, 255.0)

    def apply(self, pixels: npt.NDArray) -> npt.NDArray[np.float32]:
        """Return training values, float32, for pixels of shape (B, H, W) or (N, B, H, W) of any dtype."""
        gain = np.asarray(self.gain, dtype=np.float32)[:, None, None]
        bias = np.asarray(self.bias, dtype=np.float32)[:, None, None]
        values = pixels.astype(np.float32)
        values *= gain
        values += bias
        return np.clip(values, self.low, self.high, out=values)


def reflectance_encoding(level: str, offset: Sequence[float], scale: Sequence[float]) -> PixelEncoding:
    """Return the encoding of an L1C or L2A scene; offset is added to stored values before scaling."""
    return PixelEncoding(level, level, tuple(offset), tuple(scale))


def tci_encoding(reflectance: str, bands: int) -> PixelEncoding:
    """Return the encoding of ESA's true-colour image made from an `l1c` or `l2a` product."""
    return PixelEncoding("tci", reflectance, (-1.0,) * bands, (TCI_SATURATION[reflectance] / 254,) * bands)


def rgb8_encoding(bands: int) -> PixelEncoding:
    """Return the encoding of 8-bit values that already are what the training tiles hold."""
    return PixelEncoding("rgb8", None, (0.0,) * bands, (1.0,) * bands)


def pixel_transform(card: ModelCard, encoding: PixelEncoding) -> PixelTransform:
    """Compose the step from stored pixels to the card's training values.

    Raises SceneError if the scene holds 8-bit colours and the model needs other bands or reflectance.
    """
    if encoding.level in ("tci", "rgb8") and not VISIBLE.issuperset(card.bands):
        raise SceneError(
            f"A picture in natural colours (--level {encoding.level}) has red, green and blue only, but the "
            f"model {card.name} needs {', '.join(card.bands)}: give the reflectance bands instead."
        )
    if encoding.reflectance is None:
        if card.scaling.values != (1.0, 255.0):
            raise SceneError(
                f"--level rgb8 means values that already are the model's, but {card.name} was trained on "
                f"values of {card.scaling.values[0]:g} to {card.scaling.values[1]:g}, not on 8-bit colours."
            )
        return PixelTransform.identity(len(card.bands))
    gain = np.asarray(encoding.scale, dtype=np.float64)
    bias = gain * np.asarray(encoding.offset, dtype=np.float64)
    air_gain, air_bias = atmosphere_step(
        encoding.reflectance, card.level, card.bands, encoding.sun_zenith or SUN_ZENITH
    )
    gain, bias = air_gain * gain, air_gain * bias + air_bias
    (dark, bright), (low, high) = card.scaling.reflectance, card.scaling.values
    stretch = (high - low) / (bright - dark)
    gain, bias = stretch * gain, stretch * (bias - dark) + low
    return PixelTransform(tuple(gain.tolist()), tuple(bias.tolist()), min(low, high), max(low, high))


# A nominal clear day. All that is assumed of the atmosphere depends on these numbers only.
SUN_ZENITH = 40.0  # degrees, where it is not known; over central Europe at 10:30, April to September
LOWEST_SUN = 75.0  # degrees from the zenith; below, light comes through a curved atmosphere, scattered often
AEROSOL_DEPTH_550 = 0.1  # optical thickness at 550 nm: rural, clear
ANGSTROM_EXPONENT = 1.3  # continental aerosol
AEROSOL_ALBEDO, AEROSOL_ASYMMETRY = 0.92, 0.65
OZONE_COLUMN = 0.3  # cm at standard pressure, 300 Dobson units
SURFACE = 0.1  # reflectance at which the light between ground and sky is linearised


def atmosphere_step(
    scene_level: str, model_level: str, bands: Sequence[str], sun_zenith: float = SUN_ZENITH
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return (gain, bias) per band that bring reflectance of the scene's level to that of the model's."""
    if scene_level == model_level:
        return np.ones(len(bands)), np.zeros(len(bands))
    path, transmittance = np.array([clear_atmosphere(band, sun_zenith) for band in bands]).T
    if scene_level == "l2a":
        return transmittance, path
    return 1 / transmittance, -path / transmittance


# Centre wavelength in micrometres (Sentinel-2A, ESA's Sentinel-2 spectral response functions) and
# ozone absorption in 1/cm (Anderson et al., 1990-1993, as tabulated for ocean colour by E. P. Shettle).
WAVELENGTH_AND_OZONE = {
    "B01": (0.4427, 0.0035),
    "B02": (0.4924, 0.0217),
    "B03": (0.5598, 0.1050),
    "B04": (0.6646, 0.0506),
    "B05": (0.7041, 0.0201),
    "B06": (0.7405, 0.0108),
    "B07": (0.7828, 0.0076),
    "B08": (0.8328, 0.0),
    "B8A": (0.8647, 0.0),
    "B09": (0.9451, 0.0),
    "B10": (1.3735, 0.0),
    "B11": (1.6137, 0.0),
    "B12": (2.2024, 0.0),
}

# The water-vapour band keeps little of the surface's signal; elsewhere vapour takes a few percent, left
# out. EuroSAT's own L1C channel means: 732 in B09 between 2,301 (B08) and 2,599 (B8A).
WATER_VAPOUR_TRANSMITTANCE = {"B09": 0.30}


@cache
def clear_atmosphere(
    band: str, sun_zenith: float = SUN_ZENITH, aerosol_depth: float = AEROSOL_DEPTH_550
) -> tuple[float, float]:
    """Return (path reflectance, transmittance): rho_TOA = path + transmittance * rho_surface.

    `sun_zenith` is in degrees, `aerosol_depth` the optical thickness at 550 nm.

    - Rayleigh optical thickness at sea level: Bodhaine et al. (1999), eq. 30.
    - Path reflectance: single scattering, tau P(Theta) / (4 mu_s mu_v) (Hansen & Travis, 1974), nadir
      view, molecules plus a Henyey-Greenstein aerosol.
    - Diffuse and direct transmittance: exp(-(0.52 tau_R + 0.16 tau_A) / mu) (Tanre et al., 1979) down
      and up, raised by what ground and sky pass back and forth, 1 / (1 - s rho) at rho = 0.1 with the
      molecular spherical albedo s = 0.92 tau_R exp(-tau_R).
    - Ozone lies above the scattering air and dims both parts.
    """
    wavelength, ozone = WAVELENGTH_AND_OZONE[band]
    sun = cos(radians(min(sun_zenith, LOWEST_SUN)))
    air_mass = 1 / sun + 1
    rayleigh = rayleigh_depth(wavelength)
    aerosol = aerosol_depth * (wavelength / 0.55) ** -ANGSTROM_EXPONENT

    scattering_angle = -sun  # cosine, for a view from the zenith
    scattered = rayleigh * 0.75 * (1 + scattering_angle**2)
    scattered += aerosol * AEROSOL_ALBEDO * henyey_greenstein(scattering_angle, AEROSOL_ASYMMETRY)
    path = scattered / (4 * sun)

    transmittance = exp(-(0.52 * rayleigh + 0.16 * aerosol) * air_mass)
    transmittance /= 1 - 0.92 * rayleigh * exp(-rayleigh) * SURFACE
    gas = exp(-ozone * OZONE_COLUMN * air_mass) * WATER_VAPOUR_TRANSMITTANCE.get(band, 1.0)
    return path * gas, transmittance * gas


def rayleigh_depth(wavelength: float) -> float:
    """Return the Rayleigh optical thickness of the whole air column; wavelength in micrometres.

    Bodhaine, Wood, Dutton & Slusser (1999), J. Atmos. Oceanic Technol. 16, eq. 30: 45 degrees north,
    1013.25 hPa, 360 ppm CO2.
    """
    square = wavelength**2
    return (
        0.0021520
        * (1.0455996 - 341.29061 / square - 0.90230850 * square)
        / (1 + 0.0027059889 / square - 85.968563 * square)
    )


def henyey_greenstein(cosine: float, asymmetry: float) -> float:
    """Return the Henyey-Greenstein phase function, normalised to a mean of 1 over the sphere."""
    return (1 - asymmetry**2) / (1 + asymmetry**2 - 2 * asymmetry * cosine) ** 1.5
