"""Find out what a scene's stored numbers mean: the product level, and how they become reflectance.

The level is looked for in this order: what the user states, the product's metadata, tags and file names, and
finally the values themselves; `calibration` does the same for scale and offset. Every guess comes with a
warning that names the option to overrule it.
"""

from dataclasses import replace

from pipeline.errors import SceneError, UsageError
from pipeline.model.card import ModelCard
from pipeline.notes import Note, info, warning
from pipeline.options import PRODUCT_LEVELS
from pipeline.scenes.atmosphere import SUN_ZENITH, clear_atmosphere
from pipeline.scenes.bands import Imagery
from pipeline.scenes.calibration import Evidence, Stated, calibrate, check_reflectance, looks_like_8_bit
from pipeline.scenes.hints import level_in, true_color_level_in
from pipeline.scenes.plausibility import Calibration
from pipeline.scenes.radiometry import PixelEncoding, reflectance_encoding, rgb8_encoding, tci_encoding
from pipeline.scenes.stored_values import StoredValues
from pipeline.scenes.sun import UNKNOWN_SUN, Sun

LEVEL_NAMES = {"l1c": "Level-1C (top of atmosphere)", "l2a": "Level-2A (surface)"}
MAX_SATURATED = 0.02  # of the values of 8-bit colours in a file of more bits; a few may be outliers

# Of the brightness of a clear atmosphere in blue: dark pixels above it are seen through the air (L1C).
AIR_SHARE = 0.85


def find_encoding(
    card: ModelCard,
    imagery: Imagery,
    stored: StoredValues,
    level: str = "auto",
    offset: float | None = None,
    sun: Sun = UNKNOWN_SUN,
) -> tuple[PixelEncoding, list[Note]]:
    """Return what the scene's pixels mean, and the notes that say how that was found.

    `level` and `offset` are what the user states ("auto" and None: find out), `sun` is the sun over the
    scene. Raises SceneError if values and level contradict each other or the values cannot be reflectance,
    UsageError if `offset` does not fit the level.
    """
    evidence = Evidence(
        imagery.name, card.bands, stored, imagery.texts, imagery.facts, is_product=imagery.is_product
    )
    stated = Stated(level if level in PRODUCT_LEVELS else None, offset)
    if level == "auto":
        found, notes = _find_level(imagery, stored)
    else:
        found, notes = level, [info("level-stated", "level", f"Level {level}, as stated by `level`.")]
    if found in ("rgb8", "tci") and offset is not None:
        raise UsageError(
            f"`offset` belongs to reflectance (`level` l1c or l2a), not to 8-bit colours (`level` {found})."
        )
    if found == "rgb8":
        return rgb8_encoding(len(card.bands)), notes + _saturation_notes(stored)
    if found == "tci":
        encoding, more = _true_color(card, imagery, stored)
    else:
        encoding, more = _reflectance(card, evidence, found, stated)
    notes += more
    encoding = replace(encoding, sun_zenith=sun.zenith)
    if encoding.reflectance != card.level:
        notes.append(_atmosphere_note(card, encoding, sun))
    return encoding, notes


def _find_level(imagery: Imagery, stored: StoredValues) -> tuple[str | None, list[Note]]:
    """Return the level, None if only reflectance can tell it."""
    if stored.is_8_bit:
        if imagery.true_color:
            return "tci", [info("level-found", "level", "ESA's true-colour image, by its file name.")]
        return "rgb8", [
            warning(
                "level-assumed",
                "level",
                "8-bit colours of unknown stretch: used as if they were the model's own training values; if "
                "this is ESA's true-colour image, say `level` tci.",
            )
        ]
    if imagery.facts:
        level = imagery.facts.level
        return level, [info("level-found", "level", f"{LEVEL_NAMES[level]}, by the product's metadata.")]
    if named := level_in(imagery.texts):
        return named, [info("level-found", "level", f"{LEVEL_NAMES[named]}, by file name or tags.")]
    return None, []


def _level_by_values(card: ModelCard, evidence: Evidence, calibration: Calibration) -> tuple[str, list[Note]]:
    """Guess the level by blue: seen from above, even black ground has the brightness of the air over it."""
    stored = evidence.stored
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
    if looks_like_8_bit(stored, calibration):
        raise SceneError(
            f"{evidence.name} names no product level, and its values are too small for reflectance "
            "x 10,000 and not those of an 8-bit file: state `level` rgb8, l1c or l2a."
        )
    dark = float(calibration.brightness(stored).dark[card.bands.index("B02")])
    level = "l1c" if dark > AIR_SHARE * clear_atmosphere("B02")[0] else "l2a"
    return level, [
        warning(
            "level-guessed",
            "level",
            f"Nothing names the product level: {LEVEL_NAMES[level]} was assumed, as the darkest pixels "
            f"reflect {dark:.3f} in blue; {overrule}.",
        )
    ]


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


def _true_color(card: ModelCard, imagery: Imagery, stored: StoredValues) -> tuple[PixelEncoding, list[Note]]:
    """Return the encoding of ESA's true-colour image; raises SceneError if the values are not its own."""
    if stored.dtype.itemsize > 1:
        raise SceneError(
            f"{imagery.name} holds {stored.dtype} values, but ESA's true-colour image, which `level` tci "
            "states, is of 8 bit: use `level` l1c or l2a for reflectance, or convert a picture with "
            "gdal_translate -ot Byte."
        )
    level, note = _true_color_origin(imagery)
    return tci_encoding(level, len(card.bands)), [note]


def _true_color_origin(imagery: Imagery) -> tuple[str, Note]:
    """Return the level of the product that a true-colour image was made from."""
    if level := (imagery.facts.level if imagery.facts else level_in(imagery.texts)):
        return level, info("product-found", None, f"Made from {LEVEL_NAMES[level]}.")
    if level := true_color_level_in(imagery.texts):
        return level, info("product-found", None, f"Made from {LEVEL_NAMES[level]}, by file name.")
    return "l1c", warning(
        "product-assumed",
        None,
        "Nothing tells which product the true-colour image was made from: Level-1C (top of atmosphere) "
        "was assumed.",
    )


def _reflectance(
    card: ModelCard, evidence: Evidence, level: str | None, stated: Stated
) -> tuple[PixelEncoding, list[Note]]:
    """Return the encoding of reflectance; raises SceneError if the values cannot be that."""
    if evidence.stored.is_8_bit:
        raise SceneError(
            f"{evidence.name} holds 8-bit values, which cannot be the reflectance that `level` "
            f"{level} states: use `level` tci for ESA's true-colour image or `level` rgb8 for other pictures."
        )
    calibration, notes = calibrate(evidence, level, stated)
    if level is None:
        level, more = _level_by_values(card, evidence, calibration)
        notes = more + notes
    notes += check_reflectance(evidence, level, calibration, stated)
    return reflectance_encoding(level, calibration.offsets, calibration.scales), notes


def _atmosphere_note(card: ModelCard, encoding: PixelEncoding, sun: Sun) -> Note:
    verb = "added to" if encoding.reflectance == "l2a" else "removed from"
    if sun.zenith is None:
        angle = f"an assumed {SUN_ZENITH:.0f}°{f' ({sun.source})' if sun.source else ''}"
    else:
        angle = f"{sun.zenith:.0f}°, {sun.source},"
    found = LEVEL_NAMES[encoding.reflectance or ""]
    remedy = "; state `date` for the sun's own angle" if sun.date_would_tell else ""
    return info(
        "atmosphere-nominal",
        "date" if sun.date_would_tell else None,
        f"The model was trained on {LEVEL_NAMES[card.level]}, the scene is {found}: a nominal clear "
        f"atmosphere, the sun {angle} from the zenith, was {verb} its reflectance{remedy}.",
    )
