"""A nominal clear atmosphere: what lies between surface reflectance and reflectance at the top of it."""

from collections.abc import Sequence
from functools import cache
from math import cos, exp, radians

import numpy as np
import numpy.typing as npt

# A nominal clear day. Everything assumed about the atmosphere follows from these numbers.
SUN_ZENITH = 40.0  # degrees, where it is not known; over central Europe at 10:30, April to September
LOWEST_SUN = 75.0  # degrees from the zenith; below, light comes through a curved atmosphere, scattered often
AEROSOL_DEPTH_550 = 0.1  # optical thickness at 550 nm: rural, clear
ANGSTROM_EXPONENT = 1.3  # continental aerosol
AEROSOL_ALBEDO, AEROSOL_ASYMMETRY = 0.92, 0.65
OZONE_COLUMN = 0.3  # cm at standard pressure, 300 Dobson units
SURFACE = 0.1  # reflectance at which the light that goes back and forth between ground and sky is linearised


def atmosphere_step(
    scene_level: str, model_level: str, bands: Sequence[str], sun_zenith: float = SUN_ZENITH
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return (gain, bias) per band, both float64 (B,), from reflectance of one level to that of another.

    Levels are l1c and l2a; `sun_zenith` is in degrees.
    """
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

# The water-vapour band keeps little of the surface's signal. Elsewhere vapour takes a few percent, which are
# neglected. EuroSAT's own L1C channel means: 732 in B09 between 2,301 (B08) and 2,599 (B8A).
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
      and up, raised by the light that ground and sky pass back and forth, 1 / (1 - s rho) at rho = 0.1
      with the molecular spherical albedo s = 0.92 tau_R exp(-tau_R).
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
