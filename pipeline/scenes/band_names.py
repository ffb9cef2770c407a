"""The names of Sentinel-2's bands, and how files, descriptions and people write them. Strings only."""

import re

# In the order of `band_id` in the product metadata.
BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")

SCENE_CLASSIFICATION = "SCL"
"""The Level-2A layer of classes (cloud, shadow, water ...), which is delivered as if it were a band."""

# STAC common names, the names of Earth Search's assets, and what people write by hand.
COMMON_NAMES = {
    "B01": ("coastal", "coastalaerosol", "aerosol"),
    "B02": ("blue",),
    "B03": ("green",),
    "B04": ("red",),
    "B05": ("rededge1", "rededge071"),
    "B06": ("rededge2", "rededge075"),
    "B07": ("rededge3", "rededge078"),
    "B08": ("nir", "nearinfrared"),
    "B8A": ("nir08", "narrownir", "nirnarrow"),
    "B09": ("nir09", "watervapour", "watervapor"),
    "B10": ("cirrus",),
    "B11": ("swir1", "swir16"),
    "B12": ("swir2", "swir22"),
}
BAND_OF_NAME = {name: band for band, names in COMMON_NAMES.items() for name in names}
USER_NAME = {"B02": "blue", "B03": "green", "B04": "red"}

# Nanometres, rounded: https://sentiwiki.copernicus.eu/web/s2-mission.
CENTRES = dict(zip(BANDS, (443, 490, 560, 665, 705, 740, 783, 842, 865, 945, 1375, 1610, 2190), strict=True))

_BAND_TOKEN = re.compile(r"(?<![A-Za-z0-9])B(0?[1-9]|1[0-2]|0?8A)(?![A-Za-z0-9])", re.IGNORECASE)
_UNPADDED_TOKEN = re.compile(r"(?<![A-Za-z0-9])B[1-9](?![A-Za-z0-9])", re.IGNORECASE)
_WAVELENGTH = re.compile(r"(?<![\d.])(\d{3,4})(?:\.\d+)?\s*nm\b", re.IGNORECASE)
_SCL_TOKEN = re.compile(r"(?<![A-Za-z0-9])SCL(?![A-Za-z0-9])|scene[ _-]classification", re.IGNORECASE)


def band_of(text: str) -> str | None:
    """Return the band that a description, a variable or an option names, or None.

    Understands "B04", "b4", "red", "Red (665 nm)", "B4, central wavelength 665 nm", "T32UQD_B04_10m". Other
    sensors number their bands otherwise: of "B3 (red)" the colour counts, and "B3, 850 nm" is no band.
    """
    if match := _BAND_TOKEN.search(text):
        band = _canonical(match[1])
        if color := _color_beside(text, match):
            return color
        wavelength = _WAVELENGTH.search(text)
        return None if wavelength and abs(int(wavelength[1]) - CENTRES[band]) > 40 else band
    return BAND_OF_NAME.get(_plain(re.split(r"[(,:\[]", text)[0]))


def has_only_a_number(text: str) -> bool:
    """Return whether only a number says which band a text means: "B4", "x_B04", but not "B4 (red)"."""
    match = _BAND_TOKEN.search(text)
    return bool(match and not _words_beside(text, match) and not _WAVELENGTH.search(text))


def band_in_file_name(stem: str) -> tuple[str, str] | None:
    """Return (band or `SCENE_CLASSIFICATION`, rest of the name) for the file of a single band, else None.

    The rest tells apart several sets of band files in one folder: `mol_l1c_B02` and `mol_l1c_B03` belong
    together, `other_B02` does not.
    """
    stem = re.sub(r"_(10|20|60)m$", "", stem)
    if matches := list(_BAND_TOKEN.finditer(stem)):
        start, end = matches[-1].span()
        band = _color_beside(stem, matches[-1]) or _canonical(matches[-1][1])
    elif match := _SCL_TOKEN.search(stem):
        band, start, end = SCENE_CLASSIFICATION, match.start(), match.end()
    else:
        rest, _, last = stem.rpartition("_")
        if last.lower() not in BAND_OF_NAME:
            return None
        return BAND_OF_NAME[last.lower()], rest
    return band, f"{stem[:start].rstrip('_-. ')}{stem[end:]}"


def is_running_number(stem: str) -> bool:
    """Return whether a file is numbered as no Sentinel-2 file is: x_B1, but not x_B01, x_B1_blue or x_B10."""
    return has_only_a_number(stem) and bool(_UNPADDED_TOKEN.search(stem))


def names_scene_classification(text: str) -> bool:
    """Return whether a file name, a tag or a band description means the scene classification."""
    return bool(_SCL_TOKEN.search(text))


def user_band(band: str) -> str:
    """Return the name for messages and `bands`: red, green, blue, or the Sentinel-2 name."""
    return USER_NAME.get(band, band)


def _words_beside(text: str, token: re.Match[str]) -> list[str]:
    """Return the bands that words beside a number name."""
    rest = f"{text[: token.start()]},{text[token.end() :]}"
    words = map(_plain, re.split(r"[^A-Za-z0-9 ]+", rest))
    return [BAND_OF_NAME[word] for word in words if word in BAND_OF_NAME]


def _color_beside(text: str, token: re.Match[str]) -> str | None:
    """Return the band that a word beside a number names, if either is red, green or blue; else None."""
    band = _canonical(token[1])
    for named in _words_beside(text, token):
        if named in USER_NAME or band in USER_NAME:
            return named
    return None


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _canonical(number: str) -> str:
    return "B8A" if number.upper().endswith("8A") else f"B{int(number):02d}"
