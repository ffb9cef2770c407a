"""Find out what a scene's stored numbers mean: product level, offset, scale.

In this order: what the user states, the product's metadata, tags and file names, and at last the values
themselves. What was guessed is said in a warning that names the option to overrule it.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pipeline.errors import SceneError, UsageError
from pipeline.model.card import ModelCard
from pipeline.notes import Note, info, warning
from pipeline.scenes.atmosphere import SUN_ZENITH, clear_atmosphere
from pipeline.scenes.bands import Imagery
from pipeline.scenes.radiometry import PixelEncoding, reflectance_encoding, rgb8_encoding, tci_encoding
from pipeline.scenes.sentinel2 import baseline_in, level_in, offset_of_baseline

LEVEL_NAMES = {"l1c": "Level-1C (top of atmosphere)", "l2a": "Level-2A (surface)"}
TEN_THOUSANDTHS = 1e-4  # Sentinel-2 stores reflectance x 10,000

# Of stored values, in the darkest band: with the offset of 1,000 still in, hardly a pixel lies below the
# first (noise, water, overcorrected shadow); a scene whose dark pixels lie above the second is bright.
OFFSET_IN_ABOVE = 900
OFFSET_IN_BELOW = {"l1c": 1600, "l2a": 1400}
DARK_QUANTILE = 0.005
MAX_SATURATED = 0.02  # of the values of 8-bit colours in a file of more bits; a few may be outliers


class StoredValues:
    """What a scene's files hold, as numbers: type, GDAL's scale and offset per band, and a sample.

    `draw_sample` returns valid pixels of the model's bands, shape (B, n); it reads the files and so is
    called only if the question cannot be answered without.
    """

    def __init__(
        self,
        dtype: np.dtype,
        scales: tuple[float, ...],
        offsets: tuple[float, ...],
        draw_sample: Callable[[], npt.NDArray],
    ):
        self.dtype = dtype
        self.scales = scales
        self.offsets = offsets
        self._draw_sample = draw_sample

    @cached_property
    def sample(self) -> npt.NDArray:
        """Return valid pixels, shape (B, n); those that are 0 in every band are left out."""
        pixels = self._draw_sample()
        return pixels[:, pixels.any(axis=0)]

    @property
    def is_empty(self) -> bool:
        """Tell whether the sample holds no valid pixel at all."""
        return self.sample.shape[1] == 0

    @cached_property
    def _darkest(self) -> npt.NDArray:
        return np.quantile(self.sample, DARK_QUANTILE, axis=1)

    def dark(self, band: int | None = None) -> float:
        """Return the value of the darkest pixels, of one band or of the darkest band."""
        return float(self._darkest.min() if band is None else self._darkest[band])

    @property
    def is_scaled(self) -> bool:
        """Tell whether the file itself says how to scale its values."""
        return any(scale != 1 for scale in self.scales)


def find_encoding(
    card: ModelCard, imagery: Imagery, stored: StoredValues, level: str = "auto", offset: int | None = None
) -> tuple[PixelEncoding, list[Note]]:
    """Return what the scene's pixels mean, and the notes that say how that was found.

    `level` and `offset` are what the user states ("auto" and None: find out). Raises SceneError if
    values and level contradict each other.
    """
    level, notes = (
        (level, [info("level-stated", "level", f"Level {level}, as stated by `level`.")])
        if level != "auto"
        else (_find_level(card, imagery, stored))
    )
    if level in ("rgb8", "tci") and offset is not None:
        raise UsageError(
            f"`offset` belongs to reflectance (`level` l1c or l2a), not to 8-bit colours (`level` {level})."
        )
    if level == "rgb8":
        return rgb8_encoding(len(card.bands)), notes + _saturation_notes(stored)
    if level == "tci":
        if stored.dtype.itemsize > 1:
            raise SceneError(
                f"{imagery.name} holds {stored.dtype} values, but ESA's true-colour image, which `level` tci "
                "states, is of 8 bit: use `level` l1c or l2a for reflectance, or convert a picture with "
                "gdal_translate -ot Byte."
            )
        reflectance, more = _true_colour_origin(card, imagery)
        encoding = tci_encoding(reflectance, len(card.bands))
    else:
        if stored.dtype.itemsize == 1 and not stored.is_scaled:
            raise SceneError(
                f"{imagery.name} holds 8-bit values, which cannot be the reflectance that `level` {level} "
                "states: use `level` tci for ESA's true-colour image or `level` rgb8 for other pictures."
            )
        scale, more = _find_scale(imagery, stored, card)
        offsets, offset_notes = _find_offset(card, imagery, stored, level, offset, scale)
        more += offset_notes
        encoding = reflectance_encoding(level, offsets, scale)
    notes += more
    if imagery.metadata:
        encoding = replace(encoding, sun_zenith=imagery.metadata.sun_zenith)
    if encoding.reflectance != card.level:
        notes.append(_atmosphere_note(card, encoding))
    return encoding, notes


def _saturation_notes(stored: StoredValues) -> list[Note]:
    """Warn of stated 8-bit colours that are not: files of more bits may hold 0 to 255, or reflectance."""
    if stored.dtype.itemsize == 1 or stored.is_empty:
        return []
    above = float((stored.sample > 255).mean())
    if above <= MAX_SATURATED:
        return []
    return [
        warning(
            "values-saturated",
            "level",
            f"`level` rgb8 states values of 0 to 255, but {above:.0%} of them lie above and are taken for "
            "255: if these are reflectance, state `level` l1c or l2a.",
        )
    ]


def _atmosphere_note(card: ModelCard, encoding: PixelEncoding) -> Note:
    verb = "added to" if encoding.reflectance == "l2a" else "removed from"
    sun = (
        f"an assumed {SUN_ZENITH:.0f}°"
        if encoding.sun_zenith is None
        else f"{encoding.sun_zenith:.0f}°, by the granule's metadata,"
    )
    found = LEVEL_NAMES[encoding.reflectance or ""]
    return info(
        "atmosphere-nominal",
        None,
        f"The model was trained on {LEVEL_NAMES[card.level]}, the scene is {found}: a nominal clear "
        f"atmosphere, the sun {sun} from the zenith, was {verb} its reflectance.",
    )


def _find_level(card: ModelCard, imagery: Imagery, stored: StoredValues) -> tuple[str, list[Note]]:
    if stored.dtype.itemsize == 1 and not stored.is_scaled:
        if imagery.true_colour:
            return "tci", [info("level-found", "level", "ESA's true-colour image, by its file name.")]
        return "rgb8", [
            warning(
                "level-assumed",
                "level",
                "8-bit colours of unknown stretch: used as if they were the model's own training values; if "
                "this is ESA's true-colour image, say `level` tci.",
            )
        ]
    if imagery.metadata:
        level = imagery.metadata.level
        return level, [info("level-found", "level", f"{LEVEL_NAMES[level]}, by the product's metadata.")]
    if named := level_in(imagery.texts):
        return named, [info("level-found", "level", f"{LEVEL_NAMES[named]}, by file name or tags.")]
    return _level_by_values(card, imagery.name, stored)


def _level_by_values(card: ModelCard, name: str, stored: StoredValues) -> tuple[str, list[Note]]:
    """Tell the level by blue: seen from above, even black ground has the brightness of the air over it."""
    overrule = "state `level` l1c or l2a if that is wrong"
    if stored.is_empty or "B02" not in card.bands:
        return card.level, [
            warning(
                "level-assumed",
                "level",
                f"Nothing tells the product level: assumed to be the model's own, {LEVEL_NAMES[card.level]}; "
                f"{overrule}.",
            )
        ]
    scale = _scale_of_values(stored)
    if scale != 1 and np.quantile(stored.sample, 0.98) <= 255:
        raise SceneError(
            f"{name} names no product level, and its values are too small for reflectance x 10,000 and not "
            "those of an 8-bit file: state `level` rgb8, l1c or l2a."
        )
    offset = _offset_by_values(stored, "l1c") if scale != 1 else 0
    dark = scale * (stored.dark(card.bands.index("B02")) + offset)
    level = "l1c" if dark > 0.85 * clear_atmosphere("B02")[0] else "l2a"
    return level, [
        warning(
            "level-guessed",
            "level",
            f"Nothing names the product level: {LEVEL_NAMES[level]} was assumed, as the darkest pixels "
            f"reflect {dark:.3f} in blue; {overrule}.",
        )
    ]


def _true_colour_origin(card: ModelCard, imagery: Imagery) -> tuple[str, list[Note]]:
    """Return the level of the product that a true-colour image was made from."""
    if level := (imagery.metadata.level if imagery.metadata else level_in(imagery.texts)):
        return level, [info("product-found", None, f"Made from {LEVEL_NAMES[level]}.")]
    for text in imagery.texts:
        # L2A products name the resolution of every image, L1C products of none.
        if match := re.search(r"T\d\d[A-Z]{3}_\d{8}T\d{6}_TCI(_[126]0m)?", text):
            level = "l2a" if match[1] else "l1c"
            return level, [info("product-found", None, f"Made from {LEVEL_NAMES[level]}, by file name.")]
    return "l1c", [
        warning(
            "product-assumed",
            None,
            "Nothing tells which product the true-colour image was made from: Level-1C (top of atmosphere) "
            "was assumed.",
        )
    ]


def _find_scale(
    imagery: Imagery, stored: StoredValues, card: ModelCard
) -> tuple[tuple[float, ...], list[Note]]:
    """Return the factor per band from stored value (plus offset) to reflectance."""
    bands = len(card.bands)
    if imagery.metadata and not np.issubdtype(stored.dtype, np.floating):
        return (1 / imagery.metadata.quantification,) * bands, []
    if stored.is_scaled:
        return stored.scales, [info("scale-found", None, "Scale and offset by the file's own tags.")]
    scale = _scale_of_values(stored)
    notes = []
    if np.issubdtype(stored.dtype, np.floating):
        notes.append(
            info(
                "scale-by-values",
                None,
                f"Floating-point reflectance of 0 to {1 if scale == 1 else 10_000:,}, by its values.",
            )
        )
    return (scale,) * bands, notes


def _scale_of_values(stored: StoredValues) -> float:
    """Return 1 for floating-point reflectance of 0 to 1, else 1/10,000."""
    if not np.issubdtype(stored.dtype, np.floating):
        return TEN_THOUSANDTHS
    return 1.0 if stored.is_empty or np.quantile(stored.sample, 0.98) <= 2 else TEN_THOUSANDTHS


def _find_offset(
    card: ModelCard,
    imagery: Imagery,
    stored: StoredValues,
    level: str,
    stated: int | None,
    scale: tuple[float, ...],
) -> tuple[tuple[float, ...], list[Note]]:
    """Return what is added to stored values before scaling, per band; removed once and never twice."""
    bands = len(card.bands)
    if scale[0] == 1:  # reflectance as it is
        if stated:
            raise UsageError(
                f"`offset` {stated} is meant for stored integers, but {imagery.name} holds reflectance of 0 "
                "to 1."
            )
        return (0.0,) * bands, []
    if stated is not None:
        return (float(stated),) * bands, [
            info("offset-stated", "offset", f"Offset {stated}, as stated by `offset`.")
        ]
    offsets: tuple[float, ...]
    if imagery.metadata:
        offsets = tuple(imagery.metadata.offsets[band] for band in card.bands)
        source = f"by the product's metadata (baseline {imagery.metadata.baseline})"
        if imagery.own_metadata:
            return offsets, [info("offset-found", "offset", f"Offset {_listed(offsets)}, {source}.")]
    elif stored.is_scaled:
        offsets = tuple(o / s for o, s in zip(stored.offsets, stored.scales, strict=True))
        source = "by the file's tags"
    elif baseline := baseline_in(imagery.texts):
        offsets = (float(offset_of_baseline(baseline)),) * bands
        source = f"as of processing baseline {baseline}"
    else:
        return _guessed_offset(stored, level, bands)
    if min(offsets) < 0 and not stored.is_empty and stored.dark() < OFFSET_IN_ABOVE:
        return (0.0,) * bands, [
            warning(
                "offset-not-applied",
                "offset",
                f"The offset {_listed(offsets)} {source} is not applied: the darkest pixels hold "
                f"{stored.dark():.0f}, so it was removed already; state `offset` {_listed(offsets)} if that "
                "is wrong.",
            )
        ]
    return offsets, [info("offset-found", "offset", f"Offset {_listed(offsets)}, {source}.")]


def _listed(offsets: tuple[float, ...]) -> str:
    return " ".join(f"{offset:g}" for offset in sorted(set(offsets)))


def _offset_by_values(stored: StoredValues, level: str) -> int:
    return -1000 if OFFSET_IN_ABOVE <= stored.dark() < OFFSET_IN_BELOW[level] else 0


def _guessed_offset(stored: StoredValues, level: str, bands: int) -> tuple[tuple[float, ...], list[Note]]:
    if stored.is_empty:
        return (0.0,) * bands, []
    dark, offset = stored.dark(), _offset_by_values(stored, level)
    if offset:
        note = warning(
            "offset-guessed",
            "offset",
            f"The darkest pixels hold {dark:.0f}: the offset of processing baseline 04.00 seems to be in, "
            "and -1000 was applied; state `offset` 0 if that is wrong.",
        )
    elif dark < OFFSET_IN_ABOVE:
        note = info(
            "offset-by-values",
            "offset",
            f"Offset 0: the darkest pixels hold {dark:.0f}, less than an offset of 1,000 would leave.",
        )
    else:
        note = warning(
            "offset-assumed",
            "offset",
            f"Offset 0 was assumed, but even the darkest pixels hold {dark:.0f} (clouds, snow, desert?): "
            "state `offset` -1000 for a product of baseline 04.00 or later.",
        )
    return (float(offset),) * bands, [note]
