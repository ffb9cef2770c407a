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

_BAND_TOKEN = re.compile(r"(?<![A-Za-z0-9])B(0?[1-9]|1[0-2]|0?8A)(?![A-Za-z0-9])", re.IGNORECASE)
_SCL_TOKEN = re.compile(r"(?<![A-Za-z0-9])SCL(?![A-Za-z0-9])|scene[ _-]classification", re.IGNORECASE)


def band_of(text: str) -> str | None:
    """Return the band that a description, a variable or an option names, or None.

    Understands "B04", "b4", "red", "Red (665 nm)", "B4, central wavelength 665 nm", "T32UQD_B04_10m".
    """
    if match := _BAND_TOKEN.search(text):
        return _canonical(match[1])
    plain = re.sub(r"[^a-z0-9]", "", re.split(r"[(,:\[]", text)[0].lower())
    return BAND_OF_NAME.get(plain)


def band_in_file_name(stem: str) -> tuple[str, str] | None:
    """Return (band or `SCENE_CLASSIFICATION`, rest of the name) for the file of a single band, else None.

    The rest tells apart several sets of band files in one folder: `mol_l1c_B02` and `mol_l1c_B03` belong
    together, `other_B02` does not.
    """
    stem = re.sub(r"_(10|20|60)m$", "", stem)
    if matches := list(_BAND_TOKEN.finditer(stem)):
        band, start, end = _canonical(matches[-1][1]), matches[-1].start(), matches[-1].end()
    elif match := _SCL_TOKEN.search(stem):
        band, start, end = SCENE_CLASSIFICATION, match.start(), match.end()
    else:
        rest, _, last = stem.rpartition("_")
        if last.lower() not in BAND_OF_NAME:
            return None
        return BAND_OF_NAME[last.lower()], rest
    return band, f"{stem[:start].rstrip('_-. ')}{stem[end:]}"


def names_scene_classification(text: str) -> bool:
    """Return whether a file name, a tag or a band description means the scene classification."""
    return bool(_SCL_TOKEN.search(text))


def user_band(band: str) -> str:
    """Return the name for messages and `bands`: red, green, blue, or the Sentinel-2 name."""
    return USER_NAME.get(band, band)


def _canonical(number: str) -> str:
    return "B8A" if number.upper().endswith("8A") else f"B{int(number):02d}"
