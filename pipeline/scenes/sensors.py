"""Which sensor took a scene, by tell-tales in file names, tags and band descriptions. Strings only."""

import re
from collections.abc import Iterable

SENTINEL_2 = "Sentinel-2"

_START, _END = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])"


def _tell_tale(*tokens: str) -> re.Pattern[str]:
    return re.compile(f"{_START}(?:{'|'.join(tokens)}){_END}", re.IGNORECASE)


_OTHERS = {
    "PlanetScope": _tell_tale(
        r"PS(?:Scene|OrthoTile)\w*", r"PlanetScope", r"SuperDove", r"(?:ortho_)?Analytic_?MS"
    ),
    "RapidEye": _tell_tale(r"RapidEye", r"RE(?:Scene|OrthoTile)"),
    "Landsat 8 or 9": _tell_tale(r"L[COT]0[89]", r"HLS[._]L30", r"Landsat[-_ ]?[89]"),
    "Landsat 7": _tell_tale(r"LE0?7", r"Landsat[-_ ]?7"),
    "Landsat 4 or 5": _tell_tale(r"L[TM]0[45]", r"Landsat[-_ ]?[45]"),
    "Landsat": _tell_tale(r"SR_B\d{1,2}", r"Landsat", r"L[12](?:TP|SP|GT|GS)"),
    "SPOT": _tell_tale(r"SPOT[-_ ]?[1-7]"),
    "Pléiades": _tell_tale(r"PHR1[AB]", r"PNEO[34]?", r"Pleiades"),
    "WorldView": _tell_tale(r"WV0?[1-4]", r"WorldView[-_ ]?[1-4]"),
}

_SENTINEL_2 = _tell_tale(
    r"S2[A-D]?",
    r"HLS[._]S30",
    r"Sentinel[-_ ]?2[A-D]?",
    r"S2MSI(?:1C|2A)",
    r"MSIL?(?:1C|2A)",
    r"L(?:evel[-_ ]?)?(?:1C|2Ap?)",
    r"N0[2-9]\d\d",
    r"PROCESSING_BASELINE",
    r"T\d\d[C-X][A-Z]{2}",
    r"TCI",
)

_RED_GREEN_BLUE = {"Landsat 8 or 9": "4, 3 and 2", "Landsat 7": "3, 2 and 1", "Landsat 4 or 5": "3, 2 and 1"}
"""The numbers of red, green and blue where the sensor is sure to number its bands so."""


def sensor_in(texts: Iterable[str]) -> str | None:
    """Return the sensor that the first telling text names, None if none tells.

    Give what says most about a file first: `HLS.L30` in its name counts more than `S2` in its folder's. In
    one text another sensor's tell-tale counts more than Sentinel-2's, whose tokens are short.
    """
    for text in texts:
        for sensor, tell_tale in _OTHERS.items():
            if tell_tale.search(text):
                return sensor
        if _SENTINEL_2.search(text):
            return SENTINEL_2
    return None


def numbering_of(sensor: str) -> str:
    """Return which of a sensor's band numbers are red, green and blue, as a clause; empty if that varies."""
    numbers = _RED_GREEN_BLUE.get(sensor)
    return f" ({sensor} numbers red, green and blue {numbers})" if numbers else ""
